import type { Storage } from '#storage'
import { cover, type Cover, readHeads, type StoredObject } from './inventory.ts'
import type { Trust } from './object.ts'
import { follows } from './record.ts'

type How = { readonly storage: Storage; readonly trust: Trust; readonly signal: AbortSignal }

/**
 * Chooses objects as `cover` does, and where the store could not keep two archivers apart, asks the chain: what an
 * archiver of an older epoch wrote counts only if the newer one went on from it.
 */
export async function settledCover(objects: readonly StoredObject[], how: How): Promise<Cover> {
  let left = objects
  const stale: StoredObject[] = []
  for (;;) {
    const covered = cover(left)
    const loser = await findStale(covered.chosen, how)
    if (!loser) return { ...covered, rivals: [...covered.rivals, ...stale] }
    stale.push(loser)
    left = left.filter((object) => object !== loser)
  }
}

async function findStale(
  chosen: readonly StoredObject[],
  how: How,
): Promise<StoredObject | undefined> {
  for (const [i, after] of chosen.entries()) {
    const before = chosen[i - 1]
    if (!before || before.writerEpoch === undefined || after.writerEpoch === undefined) continue
    if (before.writerEpoch >= after.writerEpoch) continue
    const [a, b] = await readHeads(how.storage, [before, after], how.trust, how.signal)
    if (a && b && 'link' in a && 'link' in b && !follows(a, b)) return before
  }
  return undefined
}
