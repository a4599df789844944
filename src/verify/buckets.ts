import type { BucketSum, FullRow, Spread } from '#change/digest'
import { compareRows, fetchRows, keyText, rowText, type Surplus, surpluses } from './differences.ts'
import type { Pair } from './pair.ts'
import type { RowDifference, TableResult } from './table-result.ts'
import { both, differencesMax, runsOf, type Work } from './work.ts'

/** About so many rows to a bucket. */
const bucketRows = 256
const bitsMax = 16
/** Rows whose digests are fetched in one reading of the table. */
const tallyRowsMax = 100_000
/** Digests that are asked for in one reading. */
const digestsMax = 1000
/** Parts of the recheck's time; each look reads the table once for a thousand digests. */
const lookParts = [1 / 4, 1 / 4, 1 / 2]

/**
 * Compares a table without a key that both sides keep in one order: rows are spread over buckets by digests, and what lies in
 * buckets that differ is compared as a bag of rows. Each step reads the whole table once.
 */
export async function compareBuckets(
  work: Work,
  result: TableResult,
  signal: AbortSignal,
): Promise<void> {
  const { sides, sample, progress } = work
  const { pair } = result
  result.by = 'buckets'
  const share = pair.rowsEstimate * (sample?.share ?? 1)
  const bits = Math.max(0, Math.min(bitsMax, Math.ceil(Math.log2(Math.max(1, share / bucketRows)))))
  const spread: Spread = { bits, sample: sample && { ...sample } }
  const [from, to] = await both(
    sides.source.spread(pair.source, spread, { signal }),
    sides.target.spread(pair.target, spread, { signal }),
  )
  result.sourceRows += totalOf(from)
  result.targetRows += totalOf(to)
  progress.doneItems += Number(totalOf(from))
  await work.pace?.pass(totalOf(from), signal)
  const unequal = differing(from, to)
  const perReading = Math.max(
    1,
    Math.floor(
      (tallyRowsMax * unequal.length) /
        (1 + Number(unequal.reduce((sum, one) => sum + one.rows, 0n))),
    ),
  )
  for (const some of runsOf(unequal, perReading)) {
    if (!work.repair && result.found >= differencesMax) {
      result.more = true
      return
    }
    const narrow = { ...spread, buckets: some.map(({ bucket }) => bucket) }
    const [own, other] = await both(
      sides.source.tally(pair.source, narrow, { signal }),
      sides.target.tally(pair.target, narrow, { signal }),
    )
    await settleBag(work, result, surpluses(own, other), signal)
  }
}

function totalOf(sums: readonly BucketSum[]): bigint {
  return sums.reduce((total, { rows }) => total + rows, 0n)
}

function differing(
  source: readonly BucketSum[],
  target: readonly BucketSum[],
): readonly { readonly bucket: number; readonly rows: bigint }[] {
  const there = new Map(target.map((one) => [one.bucket, one]))
  const found: { bucket: number; rows: bigint }[] = []
  for (const { bucket, rows, sum } of source) {
    const other = there.get(bucket)
    there.delete(bucket)
    if (other?.rows === rows && other.sum === sum) continue
    found.push({ bucket, rows: other && other.rows > rows ? other.rows : rows })
  }
  for (const { bucket, rows } of there.values()) found.push({ bucket, rows })
  return found
}

/** Looks again until what differs has gone or the time is over. */
async function settleBag(
  work: Work,
  result: TableResult,
  found: readonly Surplus[],
  signal: AbortSignal,
): Promise<void> {
  let left = found
  let still = new Set(found)
  if (work.recheckMs > 0) {
    for (const part of lookParts) {
      if (left.length === 0) return
      await work.time.sleep(work.recheckMs * part, signal)
      const now = await countAgain(work, result.pair, left, signal)
      const before = new Map(left.map(({ digest, rows }) => [digest, rows]))
      still = new Set(now.filter(({ digest, rows }) => before.get(digest) === rows))
      left = now
    }
  }
  for (const { rows } of left.filter((one) => !still.has(one))) result.changing += Math.abs(rows)
  await confirmBag(work, result, [...still], signal)
}

async function countAgain(
  { sides }: Work,
  pair: Pair,
  list: readonly Surplus[],
  signal: AbortSignal,
): Promise<readonly Surplus[]> {
  const found: Surplus[] = []
  for (const some of runsOf(list, digestsMax)) {
    const digests = some.map(({ digest }) => digest)
    const [from, to] = await both(
      sides.source.count(pair.source, digests, { signal }),
      sides.target.count(pair.target, digests, { signal }),
    )
    found.push(...surpluses(from, to))
  }
  return found
}

/** A row that one side has more of. */
type Loose = { readonly row: FullRow; rows: number }

/** Fetches the rows, takes those of one key for one row that differs, and counts, names and repairs. */
async function confirmBag(
  work: Work,
  result: TableResult,
  stable: readonly Surplus[],
  signal: AbortSignal,
): Promise<void> {
  const { pair } = result
  const source = await fetch(work, pair, 'source', stable, signal)
  const target = await fetch(work, pair, 'target', stable, signal)
  cancelEqual(pair, source, target)
  const differences = [...paired(pair, source, target)]
  for (const { row, rows } of source.filter((one) => one.rows > 0)) {
    const common = { key: undefined, before: undefined, target: undefined, changed: [] }
    differences.push({ kind: 'missing', rows, after: row.digest, source: row.cells, ...common })
  }
  for (const { row, rows } of target.filter((one) => one.rows > 0)) {
    const common = { key: undefined, after: undefined, source: undefined, changed: [] }
    differences.push({ kind: 'extra', rows, before: row.digest, target: row.cells, ...common })
  }
  for (const one of differences) {
    result.count(one.kind, one.rows)
    result.name(one)
  }
  for (const some of runsOf(differences, fetchRows(pair))) {
    await work.repair?.take(work.sides, result, some, signal)
  }
}

async function fetch(
  { sides }: Work,
  pair: Pair,
  side: 'source' | 'target',
  stable: readonly Surplus[],
  signal: AbortSignal,
): Promise<Loose[]> {
  const wanted = stable.filter(({ rows }) => (side === 'source' ? rows > 0 : rows < 0))
  const counts = new Map(wanted.map(({ digest, rows }) => [digest, Math.abs(rows)]))
  const found: Loose[] = []
  for (const some of runsOf([...counts.keys()], digestsMax)) {
    const which = { kind: 'digests', digests: some } as const
    for (const row of await sides[side].rows(pair[side], which, { signal })) {
      found.push({ row, rows: counts.get(row.digest) ?? 0 })
    }
  }
  return found
}

/** Rows that are equal by value though their text differs. */
function cancelEqual(pair: Pair, source: readonly Loose[], target: readonly Loose[]): void {
  if (pair.loose.length === 0) return
  const there = Map.groupBy(target, ({ row }) => rowText(pair, row.cells))
  for (const own of source) {
    for (const other of there.get(rowText(pair, own.row.cells)) ?? []) {
      const rows = Math.min(own.rows, other.rows)
      own.rows -= rows
      other.rows -= rows
    }
  }
}

/** Rows of one key on both sides: one row each, that differs. They are left out of what is missing and extra. */
function* paired(
  pair: Pair,
  source: readonly Loose[],
  target: readonly Loose[],
): Generator<RowDifference, void, void> {
  if (pair.source.key.length === 0) return
  const keyOf = ({ row }: Loose) =>
    keyText(pair.source.key.map((at) => row.cells[at] ?? Buffer.alloc(0)))
  const there = new Map(target.filter(({ rows }) => rows > 0).map((one) => [keyOf(one), one]))
  for (const own of source) {
    const other = own.rows > 0 ? there.get(keyOf(own)) : undefined
    if (!other) continue
    yield* compareRows(pair, own.row, other.row, undefined)
    own.rows = 0
    other.rows = 0
  }
}
