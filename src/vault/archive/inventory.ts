import { eachLimit } from '#base/tasks'
import type { Storage } from '#storage'
import {
  decodeText,
  encodeText,
  historyFolder,
  leaseFolder,
  type ObjectKind,
  type ObjectName,
  parseKey,
  sourceFolder,
} from './names.ts'
import { readHead, type Trust } from './object.ts'
import type { SignedRecord } from './record.ts'

/** A log object as a listing shows it. */
export type StoredObject = ObjectName & {
  readonly key: string
  readonly sizeBytes: number
  readonly modifiedMs: number
}

export type Inventory = {
  /** All of one source, by sequence, the widest first. */
  readonly objects: readonly StoredObject[]
  /** Keys below the source's folder that no archiver writes. */
  readonly strangers: readonly string[]
}

/** The place of an object: positions of one history sort as its keys do. */
export type ListMark = { readonly history: string; readonly first: string }

/** From where on a listing finds the end of the log, and all that is still to be removed before it. */
export type ListFrom = ListMark & {
  /** Where the log left other histories: what is needed there lies behind, should it come back to one. */
  readonly past: readonly ListMark[]
}

const ranks: Readonly<Record<ObjectKind, number>> = { full: 0, run: 1, part: 2 }

/** Lists the log of one source. */
export async function listLog(
  storage: Storage,
  source: string,
  signal: AbortSignal,
): Promise<Inventory> {
  const objects: StoredObject[] = []
  const strangers: string[] = []
  const leases = leaseFolder(source)
  for await (const info of storage.list(sourceFolder(source), { signal })) {
    const name = parseKey(info.key)
    if (name) objects.push({ ...name, ...info })
    else if (!info.key.startsWith(leases)) strangers.push(info.key)
  }
  return { objects: objects.sort(bySequence), strangers }
}

/**
 * Lists the end of a source's log: each history from where it was left on, and those that are new since then. One listing
 * a history, and what lies before costs nothing.
 */
export async function listLogFrom(
  storage: Storage,
  source: string,
  from: ListFrom,
  signal: AbortSignal,
): Promise<StoredObject[]> {
  const place = ({ history, first }: ListMark) =>
    `${historyFolder(source, history)}${encodeText(first)}`
  // `.` is the character behind the hyphen that follows a position in a name.
  const marks = new Map(from.past.map((mark) => [mark.history, `${place(mark)}.`]))
  marks.set(from.history, place(from))
  return listLogBehind(storage, source, marks, signal)
}

/** Lists each history behind the key that is given for it, and those whole that none is given for. */
export async function listLogBehind(
  storage: Storage,
  source: string,
  marks: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<StoredObject[]> {
  const objects: StoredObject[] = []
  for (const history of await listHistories(storage, source, signal)) {
    const folder = historyFolder(source, history)
    const after = marks.get(history) ?? folder
    for await (const info of storage.list(folder, { after, signal })) {
      const name = parseKey(info.key)
      if (name) objects.push({ ...name, ...info })
    }
  }
  return objects.sort(bySequence)
}

/** The histories of a source's log, by one look a history: behind the newest name found, the next one begins. */
async function listHistories(
  storage: Storage,
  source: string,
  signal: AbortSignal,
): Promise<string[]> {
  const top = sourceFolder(source)
  const histories: string[] = []
  for (let after = top; ; ) {
    const listing = storage.list(top, { after, signal })[Symbol.asyncIterator]()
    const { value, done } = await listing.next()
    await listing.return?.()
    if (done) return histories
    const [folder = ''] = value.key.slice(top.length).split('/')
    const history = decodeText(folder)
    if (history !== undefined) histories.push(history)
    // `0` is the character behind the slash.
    after = `${top}${folder}0`
  }
}

/** By sequence, the widest first. */
export function bySequence(a: StoredObject, b: StoredObject): number {
  return (
    a.sequenceFirst - b.sequenceFirst ||
    b.sequenceLast - a.sequenceLast ||
    ranks[a.kind] - ranks[b.kind] ||
    (b.writerEpoch ?? 0) - (a.writerEpoch ?? 0) ||
    (a.key < b.key ? -1 : 1)
  )
}

/** Which objects make up the log, and which ones it does without. */
export type Cover = {
  /** In order; a number that none of them holds is a hole. */
  readonly chosen: readonly StoredObject[]
  /** Their numbers are in a wider object: deletable after the grace period. */
  readonly covered: readonly StoredObject[]
  /** Another object has the same number and is no wider: at most one of them is in the chain. */
  readonly rivals: readonly StoredObject[]
}

/** Chooses the widest object for each number. */
export function cover(objects: readonly StoredObject[]): Cover {
  const chosen: StoredObject[] = []
  const covered: StoredObject[] = []
  const rivals: StoredObject[] = []
  for (const object of objects) {
    const last = chosen.at(-1)
    if (!last || object.sequenceFirst > last.sequenceLast) chosen.push(object)
    else if (object.kind === 'part' && last.kind === 'part') rivals.push(object)
    else if (object.sequenceLast <= last.sequenceLast && ranks[object.kind] > ranks[last.kind]) {
      covered.push(object)
    } else rivals.push(object)
  }
  return { chosen, covered, rivals }
}

/** Heads that are read at once. */
const headsAtOnce = 8

/** Reads and checks the records of objects, in their order; what an object's head throws comes in its place. */
export async function readHeads(
  storage: Storage,
  objects: readonly StoredObject[],
  trust: Trust,
  signal: AbortSignal,
): Promise<(SignedRecord | { readonly error: unknown })[]> {
  const heads: (SignedRecord | { readonly error: unknown })[] = []
  await eachLimit(objects.entries(), headsAtOnce, signal, async ([at, object], inner) => {
    try {
      heads[at] = await readHead(storage, object, trust, inner)
    } catch (error) {
      inner.throwIfAborted()
      heads[at] = { error }
    }
  })
  return heads
}
