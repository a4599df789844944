import type { Position } from '#change'
import { readStamp } from './dump.ts'
import type { Flavor } from './flavor.ts'
import { fileNumber, parsePlace, type Place } from './position.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { type LogFile, readLogFiles } from './server.ts'
import { isFault } from '#base/faults'

/**
 * A `RESET MASTER` begins the binary log anew at file one: positions of before and after do not compare, though the
 * server is the same. What comes then is a history of its own, named by the server and the time stamp of the oldest
 * file: `SERVER.5f3a1c20`. The server itself keeps no sign of it, so that it is told by the log that was kept before.
 */
export function serverOf(history: string): string {
  return history.replace(/\.[0-9a-f]{8}$/, '')
}

/**
 * The history in which the server's log stands now: that of `known`, where kept log ends, as long as the server's log
 * leads on from there; the server's own when nothing is known.
 */
export async function chooseHistory(
  source: { readonly endpoint: Endpoint; readonly flavor: Flavor; readonly history: string },
  known: Position | undefined,
  signal: AbortSignal,
): Promise<string> {
  const { endpoint, flavor, history } = source
  if (!known || serverOf(known.history) !== history) return history
  await using session = await Session.open(endpoint, { signal })
  const files = await readFiles(session, signal)
  const oldest = files[0]
  if (!oldest) return known.history
  const stampOf = (name: string) => readStamp(endpoint, flavor, name, signal)
  if (await leadsOn(parsePlace(known.at), files, stampOf)) return known.history
  const stamp = (await stampOf(oldest.name)) ?? 0
  return `${history}.${stamp.toString(16).padStart(8, '0')}`
}

/** None where there is no log, or where this user may not ask. */
async function readFiles(session: Session, signal: AbortSignal): Promise<LogFile[]> {
  try {
    return await readLogFiles(session, signal)
  } catch (error) {
    if (!isFault(error, 'denied', 'engine')) throw error
    return []
  }
}

async function leadsOn(
  place: Place,
  files: readonly LogFile[],
  stampOf: (name: string) => Promise<number | undefined>,
): Promise<boolean> {
  const numbers = files.map((file) => fileNumber(file.name))
  const file = files[numbers.indexOf(place.file)]
  if (!file) {
    // Purged, or announced and not made yet: the numbers go on.
    const next = place.offset === 0 && place.file === Math.max(...numbers) + 1
    return next || place.file < Math.min(...numbers)
  }
  if (file.sizeBytes < place.offset) return false
  if (place.stamp === undefined) return true
  const stamp = await stampOf(file.name)
  return stamp === undefined || stamp === place.stamp
}
