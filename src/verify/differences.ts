import type { Cell, DigestCount, FullRow, Key } from '#change/digest'
import { canonicalJson } from './json-value.ts'
import type { Pair } from './pair.ts'
import type { RowDifference } from './table-result.ts'
import { both, runsOf, type Work } from './work.ts'

/** A row by its key, and the digest that each side has of it; '' where there is none. */
export type KeyedDifference = {
  readonly key: Key
  readonly source: string
  readonly target: string
}

/** Rows that are fetched together: fewer when they are large. */
const fetchRowsMax = 50
const fetchBytesMax = 8 * 1024 * 1024

/** By what rows are large on the average: for those without a key. */
export function fetchRows(pair: Pair): number {
  return Math.max(1, Math.min(fetchRowsMax, Math.floor(fetchBytesMax / pair.rowBytes)))
}

export function keyText(key: Key): string {
  return key.map((cell) => `${cell.toString('hex')},`).join('')
}

type Examined = {
  readonly differences: readonly RowDifference[]
  /** Changed since they were looked at. */
  readonly changed: readonly KeyedDifference[]
}

/** Fetches rows that differ, and tells in what. What proves to be equal by value is left out. */
export async function* examine(
  work: Work,
  pair: Pair,
  list: readonly KeyedDifference[],
  signal: AbortSignal,
): AsyncGenerator<Examined, void, void> {
  const { sides } = work
  for await (const some of fitting(work, pair, list, signal)) {
    const which = { kind: 'keys', keys: some.map(({ key }) => key) } as const
    const [from, to] = await both(
      sides.source.rows(pair.source, which, { signal }),
      sides.target.rows(pair.target, which, { signal }),
    )
    const [source, target] = [byKey(pair, from), byKey(pair, to)]
    const differences: RowDifference[] = []
    const changed: KeyedDifference[] = []
    for (const one of some) {
      const text = keyText(one.key)
      const [own, other] = [source.get(text), target.get(text)]
      if ((own?.digest ?? '') !== one.source || (other?.digest ?? '') !== one.target) {
        changed.push(one)
      } else differences.push(...compareRows(pair, own, other, one.key))
    }
    yield { differences, changed }
  }
}

/** Runs of rows whose values come to so many bytes at most; a larger row comes alone. */
async function* fitting(
  { sides }: Work,
  pair: Pair,
  list: readonly KeyedDifference[],
  signal: AbortSignal,
): AsyncGenerator<readonly KeyedDifference[], void, void> {
  for (const some of runsOf(list, fetchRowsMax)) {
    const keys = some.map(({ key }) => key)
    const sizes = new Map<string, number>()
    const [from, to] = await both(
      sides.source.sizes(pair.source, keys, { signal }),
      sides.target.sizes(pair.target, keys, { signal }),
    )
    for (const { key, sizeBytes } of [...from, ...to]) {
      const text = keyText(key)
      sizes.set(text, (sizes.get(text) ?? 0) + sizeBytes)
    }
    let run: KeyedDifference[] = []
    let bytes = 0
    for (const one of some) {
      const size = sizes.get(keyText(one.key)) ?? 0
      if (run.length > 0 && bytes + size > fetchBytesMax) {
        yield run
        run = []
        bytes = 0
      }
      run.push(one)
      bytes += size
    }
    yield run
  }
}

function byKey(pair: Pair, rows: readonly FullRow[]): ReadonlyMap<string, FullRow> {
  return new Map(
    rows.map((row) => {
      const key = pair.source.key.map((at) => row.cells[at] ?? Buffer.alloc(0))
      return [keyText(key), row]
    }),
  )
}

/** The difference of two rows of one key; none when they are equal by value. */
export function compareRows(
  pair: Pair,
  source: FullRow | undefined,
  target: FullRow | undefined,
  key: Key | undefined,
): readonly RowDifference[] {
  const common = {
    rows: 1,
    key,
    before: target?.digest,
    after: source?.digest,
    source: source?.cells,
  }
  const all = { ...common, target: target?.cells, changed: [] }
  if (!source && !target) return []
  if (!target) return [{ ...all, kind: 'missing' }]
  if (!source) return [{ ...all, kind: 'extra' }]
  const changed = pair.source.columns.flatMap((_column, at) =>
    sameCell(pair, at, source.cells[at] ?? null, target.cells[at] ?? null) ? [] : [at],
  )
  return changed.length === 0 ? [] : [{ ...all, kind: 'different', changed }]
}

function sameCell(pair: Pair, at: number, a: Cell, b: Cell): boolean {
  if (a === null || b === null) return a === b
  if (a.equals(b)) return true
  if (!pair.loose.includes(at)) return false
  const value = canonicalJson(a.toString())
  return value !== undefined && value === canonicalJson(b.toString())
}

/** A row's cells as one text, equal for rows that are equal by value. */
export function rowText(pair: Pair, cells: readonly Cell[]): string {
  return cells
    .map((cell, at) => {
      if (cell === null) return '-'
      const value = pair.loose.includes(at) ? canonicalJson(cell.toString()) : undefined
      return value === undefined ? cell.toString('hex') : `=${value}`
    })
    .join(',')
}

/** Rows that one side has more of than the other, by their digest: of the source when it is above 0. */
export type Surplus = { readonly digest: string; readonly rows: number }

/** What one side has more of; pure. */
export function surpluses(
  source: readonly DigestCount[],
  target: readonly DigestCount[],
): readonly Surplus[] {
  const counts = new Map(source.map(({ digest, rows }) => [digest, rows]))
  for (const { digest, rows } of target) counts.set(digest, (counts.get(digest) ?? 0) - rows)
  return [...counts].flatMap(([digest, rows]) => (rows === 0 ? [] : [{ digest, rows }]))
}
