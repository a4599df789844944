import { createHash } from 'node:crypto'
import type {
  Cell,
  Description,
  DigestCount,
  Digester,
  DigestTable,
  Edit,
  FullRow,
  Key,
  KeyDigest,
  KeyRange,
  RangeSum,
  Rows,
  Spread,
} from '#change/digest'
import type { TableShape } from '#change/schema'

/** How a side compares keys, and whether it takes two for one. */
export type Order = (a: string, b: string) => number

export const bytewise: Order = (a, b) => (a < b ? -1 : a > b ? 1 : 0)
/** As many collations do: upper and lower case together, ties by bytes. */
export const foldcase: Order = (a, b) =>
  bytewise(a.toLowerCase(), b.toLowerCase()) || bytewise(a, b)

export type MemoryRow = readonly (string | null)[]

/** A side that holds one table in memory, in an order of its own; the first column is the key unless `key` is empty. */
export class MemoryDigester implements Digester {
  rows_: MemoryRow[]
  readonly #order: Order
  readonly applied: Edit[] = []
  /** Called before each reading: a writer. */
  onRead: () => void = () => undefined
  rowBytes = 10
  /** The most rows that were fetched at once. */
  fetchedMost = 0
  /** Rows that were digested. */
  digested = 0

  constructor(rows: readonly MemoryRow[], order: Order = bytewise) {
    this.rows_ = [...rows]
    this.#order = order
  }

  async describe(table: TableShape): Promise<Description> {
    const columns = table.columns.map(() => ({ forms: ['text/utf8'], order: 'text' }))
    return { columns, history: false, unrepairable: undefined }
  }

  async border(
    _table: DigestTable,
    range: KeyRange,
    { rows }: { readonly rows: number },
  ): Promise<Key | undefined> {
    const row = this.#within(range).sort((a, b) => this.#order(a[0] ?? '', b[0] ?? ''))[rows]
    return row && [Buffer.from(row[0] ?? '')]
  }

  async edges(): Promise<undefined> {
    return undefined
  }

  async sum(_table: DigestTable, range: KeyRange): Promise<RangeSum> {
    this.onRead()
    const found = this.#within(range)
    this.digested += found.length
    const { from, to } = range
    const ordered = !from || !to || this.#order(text(from), text(to)) < 0
    return { rows: BigInt(found.length), sum: sumOf(found), ordered }
  }

  async list(_table: DigestTable, range: KeyRange): Promise<readonly KeyDigest[]> {
    this.onRead()
    return this.#within(range).map(keyed)
  }

  async look(_table: DigestTable, keys: readonly Key[]): Promise<readonly KeyDigest[]> {
    this.onRead()
    const wanted = new Set(keys.map(text))
    return this.rows_.filter((row) => wanted.has(row[0] ?? '')).map(keyed)
  }

  async sizes(_table: DigestTable, keys: readonly Key[]) {
    return keys.map((key) => ({ key, sizeBytes: this.rowBytes }))
  }

  async spread(table: DigestTable, spread: Spread) {
    this.onRead()
    const groups = Map.groupBy(this.rows_, (row) => bucketOf(table, row, spread.bits))
    return [...groups].map(([bucket, rows]) => ({
      bucket,
      rows: BigInt(rows.length),
      sum: sumOf(rows),
    }))
  }

  async tally(table: DigestTable, { bits, buckets }: Spread): Promise<readonly DigestCount[]> {
    return counts(this.rows_.filter((row) => buckets?.includes(bucketOf(table, row, bits)) ?? true))
  }

  async count(_table: DigestTable, digests: readonly string[]): Promise<readonly DigestCount[]> {
    this.onRead()
    return counts(this.rows_.filter((row) => digests.includes(digestOf(row))))
  }

  async rows(_table: DigestTable, which: Rows): Promise<readonly FullRow[]> {
    const wanted = new Set(which.kind === 'keys' ? which.keys.map(text) : which.digests)
    const named = (row: MemoryRow) => (which.kind === 'keys' ? (row[0] ?? '') : digestOf(row))
    const found = this.rows_.filter((row) => wanted.has(named(row)))
    this.fetchedMost = Math.max(this.fetchedMost, wanted.size)
    const full = found.map((row) => ({ digest: digestOf(row), cells: row.map(toCell) }))
    return [...new Map(full.map((row) => [row.digest, row])).values()]
  }

  statements(_table: DigestTable, edit: Edit): readonly string[] {
    return [edit.kind]
  }

  async apply(_table: DigestTable, edits: readonly Edit[]): Promise<readonly number[]> {
    const changed: number[] = []
    for (const [at, edit] of edits.entries()) {
      this.applied.push(edit)
      if (edit.kind !== 'insert') {
        const index = this.rows_.findIndex((row) => digestOf(row) === edit.before)
        if (index < 0) changed.push(at)
        else this.rows_.splice(index, 1)
        if (index < 0 || edit.kind === 'delete') continue
      }
      this.rows_.push(edit.cells.map((cell) => cell?.toString() ?? null))
    }
    return changed
  }

  #within({ from, to }: KeyRange): MemoryRow[] {
    return this.rows_.filter(([key]) => {
      if (from && this.#order(key ?? '', text(from)) < 0) return false
      return !to || this.#order(key ?? '', text(to)) < 0
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function text(key: Key): string {
  return key[0]?.toString() ?? ''
}

function toCell(value: string | null): Cell {
  return value === null ? null : Buffer.from(value)
}

function digestOf(row: MemoryRow): string {
  return createHash('md5').update(JSON.stringify(row)).digest('hex')
}

function keyed(row: MemoryRow): KeyDigest {
  return { key: [Buffer.from(row[0] ?? '')], digest: digestOf(row) }
}

function sumOf(rows: readonly MemoryRow[]): string {
  const total = rows.reduce((sum, row) => sum + BigInt(`0x${digestOf(row)}`), 0n)
  return BigInt.asUintN(128, total).toString(16)
}

function counts(rows: readonly MemoryRow[]): readonly DigestCount[] {
  const groups = Map.groupBy(rows, digestOf)
  return [...groups].map(([digest, alike]) => ({ digest, rows: alike.length }))
}

function bucketOf(table: DigestTable, row: MemoryRow, bits: number): number {
  const spreader = table.key.length > 0 ? digestOf([row[0] ?? '']) : digestOf(row)
  return Number(BigInt(`0x${spreader.slice(0, 8)}`) >> BigInt(32 - bits))
}
