import { examine, type KeyedDifference, keyText } from './differences.ts'
import type { Pair } from './pair.ts'
import type { TableResult } from './table-result.ts'
import { both, runsOf, type Work } from './work.ts'

/** Parts of the whole time after which differences are looked at again; they are the whole together. */
export const lookParts = [1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2]
/** Keys of one statement. */
const lookKeysMax = 200

/** A difference while it is looked at again and again. */
type Watched = KeyedDifference & {
  /** What each side was seen to be, before now. */
  readonly seen: { readonly source: Set<string>; readonly target: Set<string> }
  /** Both sides are as they were at the look before. */
  readonly still: boolean
}

/**
 * Looks at differences again until they have gone or the time is over. Both sides may be in use: a row that is equal at one look, or
 * of which one side came to what the other was before (it follows), is no difference.
 */
export async function settle(
  work: Work,
  result: TableResult,
  found: readonly KeyedDifference[],
  signal: AbortSignal,
): Promise<void> {
  let left: readonly Watched[] = found.map((one) => ({
    ...one,
    seen: { source: new Set([one.source]), target: new Set([one.target]) },
    still: true,
  }))
  if (work.recheckMs > 0) {
    for (const part of lookParts) {
      if (left.length === 0) return
      await work.time.sleep(work.recheckMs * part, signal)
      left = await lookAgain(work, result.pair, left, signal)
    }
  }
  if (result.dropped) return
  const stable = left.filter(({ still }) => still)
  result.changing += left.length - stable.length
  await confirm(work, result, stable, signal)
}

async function lookAgain(
  { sides }: Work,
  pair: Pair,
  watched: readonly Watched[],
  signal: AbortSignal,
): Promise<readonly Watched[]> {
  const left: Watched[] = []
  for (const some of runsOf(watched, lookKeysMax)) {
    const keys = some.map(({ key }) => key)
    const [from, to] = await both(
      sides.source.look(pair.source, keys, { signal }),
      sides.target.look(pair.target, keys, { signal }),
    )
    const source = new Map(from.map((row) => [keyText(row.key), row.digest]))
    const target = new Map(to.map((row) => [keyText(row.key), row.digest]))
    for (const one of some) {
      const text = keyText(one.key)
      const next = { source: source.get(text) ?? '', target: target.get(text) ?? '' }
      if (!hasMet(one, next)) left.push(watch(one, next))
    }
  }
  return left
}

type Digests = { readonly source: string; readonly target: string }

/** Equal now, or one side went on to where the other was seen. */
export function hasMet(before: Watched | (Digests & Pick<Watched, 'seen'>), now: Digests): boolean {
  if (now.source === now.target) return true
  if (now.target !== before.target && before.seen.source.has(now.target)) return true
  return now.source !== before.source && before.seen.target.has(now.source)
}

function watch(before: Watched, now: Digests): Watched {
  before.seen.source.add(now.source)
  before.seen.target.add(now.target)
  const still = now.source === before.source && now.target === before.target
  return { ...before, ...now, still }
}

/** What is different for good is counted, named, and repaired. */
async function confirm(
  work: Work,
  result: TableResult,
  stable: readonly KeyedDifference[],
  signal: AbortSignal,
): Promise<void> {
  const { pair } = result
  const { repair } = work
  if (!result.names && !repair && pair.loose.length === 0) {
    for (const one of stable) result.count(kindOf(one), 1)
    return
  }
  for await (const { differences, changed } of examine(work, pair, stable, signal)) {
    result.changing += changed.length
    for (const one of differences) {
      result.count(one.kind, one.rows)
      result.name(one)
    }
    await repair?.take(work.sides, result, differences, signal)
  }
}

function kindOf({ source, target }: Digests): 'missing' | 'extra' | 'different' {
  if (target === '') return 'missing'
  return source === '' ? 'extra' : 'different'
}
