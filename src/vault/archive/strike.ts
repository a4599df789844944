import { isFault } from '#base/faults'
import { eachLimit } from '#base/tasks'
import type { Position } from '#change'
import type { Storage } from '#storage'
import { claimedSigner as claimedSignerOfJson } from '../signed-json.ts'
import { cover, listLog, type StoredObject } from './inventory.ts'
import { leaseFolder } from './names.ts'
import { claimedSigner } from './object.ts'

export type Removed = {
  readonly objects: number
  /** What is lost with them: from here up to where log follows that somebody else wrote. */
  readonly lost: { readonly after: Position; readonly before: Position | undefined } | undefined
}

const atOnce = 8

/**
 * Removes what one key signed of a source's log, leases included: what is not believed must not stand in the way of what
 * is. The name in the object is enough: if another key signed it, it is no part of the log either.
 */
export async function removeSigned(
  how: {
    readonly storage: Storage
    readonly source: string
    readonly dryRun: boolean
    readonly signal: AbortSignal
  },
  keyId: string,
): Promise<Removed> {
  const { storage, source, dryRun, signal } = how
  const { objects } = await listLog(storage, source, signal)
  const struck = new Set<StoredObject>()
  await eachLimit(objects, atOnce, signal, async (object, inner) => {
    if ((await unlessGone(claimedSigner(storage, object, inner))) === keyId) struck.add(object)
  })
  const removed = { objects: struck.size, lost: lossOf(objects, struck) }
  if (dryRun) return removed
  const leases: string[] = []
  for await (const { key } of storage.list(leaseFolder(source), { signal })) {
    const bytes = await unlessGone(storage.get(key, { signal }))
    if (bytes && claimedSignerOfJson(bytes) === keyId) leases.push(key)
  }
  const keys = [...Array.from(struck, ({ key }) => key), ...leases]
  await eachLimit(keys, atOnce, signal, (key, inner) => storage.delete(key, { signal: inner }))
  return removed
}

/** The first numbers that nobody else has, up to where somebody else's follow. */
function lossOf(
  objects: readonly StoredObject[],
  struck: ReadonlySet<StoredObject>,
): Removed['lost'] {
  const { chosen } = cover(objects.filter((object) => !struck.has(object)))
  const isKept = ({ sequenceFirst }: StoredObject) =>
    chosen.some((one) => one.sequenceFirst <= sequenceFirst && sequenceFirst <= one.sequenceLast)
  const first = objects.find((object) => struck.has(object) && !isKept(object))
  if (!first) return undefined
  const next = chosen.find(({ sequenceFirst }) => sequenceFirst > first.sequenceFirst)
  return { after: placeOf(first), before: next && placeOf(next) }
}

function placeOf({ history, first }: StoredObject): Position {
  return { history, at: first }
}

async function unlessGone<T>(reading: Promise<T>): Promise<T | undefined> {
  return reading.catch((error: unknown) => {
    if (isFault(error, 'missing')) return undefined
    throw error
  })
}
