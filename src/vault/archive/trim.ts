import { eachLimit } from '#base/tasks'
import type { Position } from '#change'
import type { Storage } from '#storage'
import { readIndex } from './log-index.ts'
import type { Trust } from './object.ts'

export type TrimOptions = {
  readonly storage: Storage
  readonly source: string
  readonly trust: Trust
  readonly signal: AbortSignal
}

const deletionsAtOnce = 4

/**
 * Removes the log before a position: every object of a segment that ends at or before it, and of all stretches before
 * the one that holds it. The segment that holds the position stays whole, and so does the newest object, from which the
 * next archiver goes on. Oldest first, so that being broken off leaves no hole. Returns how many objects were removed.
 */
export async function trimLog(options: TrimOptions, before: Position): Promise<number> {
  const { storage, source, trust, signal } = options
  const { stretches } = await readIndex(storage, source, trust, signal)
  const at = stretches.findLastIndex(
    ({ history, segments }) =>
      history === before.history && (segments[0]?.objects[0]?.first ?? '') <= before.at,
  )
  const doomed: string[] = []
  const keysOf = (segments: (typeof stretches)[number]['segments']) =>
    segments.flatMap(({ spare, objects }) => [...spare, ...objects].map(({ key }) => key))
  for (const stretch of stretches.slice(0, Math.max(0, at)))
    doomed.push(...keysOf(stretch.segments))
  const segments = stretches[at]?.segments ?? []
  const kept = segments.findLastIndex(({ objects }) => (objects[0]?.first ?? '') <= before.at)
  doomed.push(...keysOf(segments.slice(0, Math.max(0, kept))))
  await eachLimit(doomed, deletionsAtOnce, signal, (key, inner) =>
    storage.delete(key, { signal: inner }),
  )
  return doomed.length
}
