import { isFault } from '#base/faults'
import { eachLimit } from '#base/tasks'
import type { Position } from '#change'
import type { Storage } from '#storage'
import { readIndex } from './log-index.ts'
import type { Trust } from './object.ts'

export type TrimOptions = {
  readonly storage: Storage
  readonly source: string
  readonly trust: Trust
  /** Records what is about to go: a check then tells it from log that was lost. */
  readonly record: (sequence: number, signal: AbortSignal) => Promise<void>
  readonly signal: AbortSignal
}

const deletionsAtOnce = 4

/**
 * Removes the log before a position: every object of a segment that ends at or before it, and of all stretches before
 * the one that holds it. The segment that holds the position stays whole, and so does the newest object, from which the
 * next archiver goes on. Segment by segment, oldest first, so that being broken off leaves no hole; it ends at the first
 * object that is held by object lock. Returns how many objects were removed.
 */
export async function trimLog(options: TrimOptions, before: Position): Promise<number> {
  const { storage, source, trust, signal } = options
  const { stretches } = await readIndex(storage, source, trust, signal)
  const at = stretches.findLastIndex(
    ({ history, segments }) =>
      history === before.history && (segments[0]?.objects[0]?.first ?? '') <= before.at,
  )
  const older = stretches.slice(0, Math.max(0, at)).flatMap((stretch) => stretch.segments)
  const segments = stretches[at]?.segments ?? []
  const kept = segments.findLastIndex(({ objects }) => (objects[0]?.first ?? '') <= before.at)
  const gone = [...older, ...segments.slice(0, Math.max(0, kept))]
  const newest = gone.at(-1)?.objects.at(-1)
  if (newest) await options.record(newest.sequenceLast, signal)
  let removed = 0
  for (const { spare, objects } of gone) {
    const keys = [...spare, ...objects].map(({ key }) => key)
    try {
      await eachLimit(keys, deletionsAtOnce, signal, (key, inner) =>
        storage.delete(key, { signal: inner }),
      )
    } catch (error) {
      // Held by object lock: what is younger is held longer.
      if (isFault(error, 'denied') && storage.can.retention) return removed
      throw error
    }
    removed += keys.length
  }
  return removed
}
