import type { Cell, Key } from '#change/digest'
import type { Pair } from './pair.ts'

export type RowKind = 'missing' | 'extra' | 'different'

/** A row that is not alike on both sides, whole: for its name, and for its repair. */
export type RowDifference = {
  readonly kind: RowKind
  /** Of a table without a key several rows may be alike. */
  readonly rows: number
  readonly key: Key | undefined
  /** The digest of the row on the target. */
  readonly before: string | undefined
  /** And of the row on the source. */
  readonly after: string | undefined
  readonly source: readonly Cell[] | undefined
  readonly target: readonly Cell[] | undefined
  /** Indexes of the columns that differ. */
  readonly changed: readonly number[]
}

/** A row as a report names it. */
export type NamedRow = {
  readonly kind: RowKind
  readonly rows: number
  /** Its key, or the first columns of a row without one. */
  readonly key: Readonly<Record<string, string | null>>
  /** Those that differ. */
  readonly columns: readonly string[]
}

export type TableVerified = {
  readonly name: readonly string[]
  readonly target: readonly string[]
  /** How it was compared: by ranges of a key, or spread over buckets by digests. */
  readonly by: 'ranges' | 'buckets'
  readonly sourceRows: bigint
  readonly targetRows: bigint
  readonly missing: number
  readonly extra: number
  readonly different: number
  /** More differ than were looked at: the figures are at least so high. */
  readonly more: boolean
  /** Rows that were changed all the while: nothing is said of them. */
  readonly changing: number
  readonly rows: readonly NamedRow[]
  readonly uncompared: readonly string[]
  readonly repaired: number
  /** Why some were not repaired. */
  readonly unrepaired: readonly string[]
}

const shownMaxCharacters = 60
const shownColumns = 4
const reasonsMax = 10

/** What is found of a table while it is compared. */
export class TableResult {
  readonly pair: Pair
  readonly #namedMax: number
  readonly #rows: NamedRow[] = []
  readonly #unrepaired = new Set<string>()
  readonly #counts = { missing: 0, extra: 0, different: 0 }
  by: 'ranges' | 'buckets' = 'ranges'
  sourceRows = 0n
  targetRows = 0n
  more = false
  changing = 0
  repaired = 0
  /** Begun anew in another way: what comes late counts no longer. */
  dropped = false

  constructor(pair: Pair, namedMax: number) {
    this.pair = pair
    this.#namedMax = namedMax
  }

  get found(): number {
    const { missing, extra, different } = this.#counts
    return missing + extra + different
  }

  /** Whether the next difference will be named. */
  get names(): boolean {
    return this.#rows.length < this.#namedMax
  }

  count(kind: RowKind, rows: number): void {
    this.#counts[kind] += rows
  }

  name(difference: RowDifference): void {
    if (this.names) this.#rows.push(nameRow(this.pair, difference))
  }

  reason(said: string): void {
    if (this.#unrepaired.size < reasonsMax) this.#unrepaired.add(said)
  }

  end(): TableVerified {
    return {
      name: this.pair.name,
      target: this.pair.target.name,
      by: this.by,
      sourceRows: this.sourceRows,
      targetRows: this.targetRows,
      ...this.#counts,
      more: this.more,
      changing: this.changing,
      rows: this.#rows,
      uncompared: this.pair.uncompared,
      repaired: this.repaired,
      unrepaired: [...this.#unrepaired],
    }
  }
}

function nameRow(pair: Pair, difference: RowDifference): NamedRow {
  const { kind, rows, changed } = difference
  const { columns, key } = pair.source
  const cells = difference.source ?? difference.target
  const indexes = key.length > 0 ? key : columns.slice(0, shownColumns).map((_, at) => at)
  const shown = indexes.map((at, position) => [
    columns[at]?.name ?? '',
    showCell(cells?.[at] ?? difference.key?.[position] ?? null),
  ])
  return {
    kind,
    rows,
    key: Object.fromEntries(shown) as Record<string, string | null>,
    columns: changed.map((at) => columns[at]?.name ?? ''),
  }
}

/** Text as it is, bytes as hex; the beginning of what is long. */
export function showCell(cell: Cell): string | null {
  if (cell === null) return null
  const text = cell.toString('utf8')
  const isText = !text.includes('\uFFFD') && !/[^\P{Cc}\s]/u.test(text)
  const shown = isText ? text : `0x${cell.toString('hex')}`
  return shown.length > shownMaxCharacters ? `${shown.slice(0, shownMaxCharacters)}…` : shown
}
