import { actualBooks, compareBooks, countOf, expectedBooks, rowCount, type Rows } from './books.ts'
import type { SeenCommit } from './oracle.ts'

/** What the comparison of a restored shop with the workload's own notes came to. */
export type Verdict = {
  /** All held: nothing missing that should be there, nothing there that should not, every row equal. */
  readonly held: boolean
  readonly rows: number
  readonly transactions: number
  /** Commits that had returned and are not there. */
  readonly lost: number
  /** Age of the oldest of them when the server died; 0 when none is lost. */
  readonly lostMs: number
  /** In words, what did not hold. */
  readonly troubles: readonly string[]
}

/** The two clocks are one machine's, but not read in one instant. */
const clockSlackMs = 2
const troublesMax = 5

/** A shop restored to a moment: `boundMs` divides the commits that belong to it from those that do not. */
export function judgeMoment(rows: Rows, seen: readonly SeenCommit[], boundMs: number): Verdict {
  const actual = actualBooks(rows)
  const count = countOf(actual)
  const missing = seen.filter((c) => c.n > count && c.returnedMs < boundMs - clockSlackMs)
  const tooLate = seen.filter((c) => c.n <= count && c.startedMs > boundMs + clockSlackMs)
  const troubles = [
    ...missing.map((c) => `order ${c.n} had been committed before that moment and is missing`),
    ...tooLate.map((c) => `order ${c.n} began after that moment and is there`),
    ...differences(expectedBooks(count), actual),
  ]
  return verdict(actual, count, troubles, missing)
}

/** A shop restored to the end of its log, after a mistake that struck behind transaction `mistakeAfter`. */
export function judgeLatest(
  rows: Rows,
  seen: readonly SeenCommit[],
  options: { readonly mistakeAfter: number; readonly lossMaxMs: number },
): Verdict {
  const actual = actualBooks(rows)
  const count = countOf(actual)
  const lost = seen.filter((c) => c.n > count)
  const lostMs = spanMs(lost, seen)
  const troubles = [
    ...(lostMs > options.lossMaxMs ? [`${lost.length} commits of ${lostMs} ms are lost`] : []),
    // The commit under way when the server died may have happened; more than that was never asked for.
    ...(count > seen.length + 1 ? [`order ${count} is there, and was never placed`] : []),
    ...differences(expectedBooks(count, options.mistakeAfter), actual),
  ]
  return verdict(actual, count, troubles, lost, lostMs)
}

function spanMs(lost: readonly SeenCommit[], seen: readonly SeenCommit[]): number {
  const first = lost[0]
  const last = seen.at(-1)
  return first && last ? Math.max(1, last.returnedMs - first.startedMs) : 0
}

function differences(
  expected: ReturnType<typeof expectedBooks>,
  actual: ReturnType<typeof actualBooks>,
): string[] {
  return compareBooks(expected, actual).map(
    ({ table, key, expected: wanted, actual: found }) =>
      `${table} ${key}: expected ${wanted ?? 'no row'}, found ${found ?? 'no row'}`,
  )
}

function verdict(
  actual: ReturnType<typeof actualBooks>,
  transactions: number,
  troubles: readonly string[],
  lost: readonly SeenCommit[],
  lostMs = 0,
): Verdict {
  const more = troubles.length - troublesMax
  const shown = troubles.slice(0, troublesMax)
  return {
    held: troubles.length === 0,
    rows: rowCount(actual),
    transactions,
    lost: lost.length,
    lostMs,
    troubles: more > 0 ? [...shown, `and ${more} more`] : shown,
  }
}
