import type { Digester } from '#change/digest'
import type { Progress } from '#base/progress'
import type { Time } from '#base/time'
import type { Pace } from './pace.ts'
import type { Repair } from './repair.ts'
import type { Sample } from './sample.ts'

export type Sides = { readonly source: Digester; readonly target: Digester }

/** What the comparing of every table shares. */
export type Work = {
  readonly sides: Sides
  readonly time: Time
  readonly pace: Pace | undefined
  /** How long a difference is looked at again before it counts. */
  readonly recheckMs: number
  readonly repair: Repair | undefined
  readonly sample: Sample | undefined
  /** Rows of one chunk; a test makes it small. */
  readonly chunkRows: number | undefined
  readonly progress: Progress
}

/** Differences of one table that are looked at closely; of more it is only told that they are there. Not so in a repair. */
export const differencesMax = 10_000

/** Both sides at once: rows that change meanwhile are seen at nearly the same moment. */
export async function both<A, B>(a: Promise<A>, b: Promise<B>): Promise<readonly [A, B]> {
  const [first, second] = await Promise.allSettled([a, b])
  if (first.status === 'rejected') throw first.reason
  if (second.status === 'rejected') throw second.reason
  return [first.value, second.value]
}

/** A list in runs of at most so many. */
export function* runsOf<T>(list: readonly T[], size: number): Generator<readonly T[], void, void> {
  for (let at = 0; at < list.length; at += size) yield list.slice(at, at + size)
}
