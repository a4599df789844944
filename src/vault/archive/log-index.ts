import type { Storage } from '#storage'
import {
  bySequence,
  type Cover,
  listLog,
  listLogBehind,
  readHeads,
  type StoredObject,
} from './inventory.ts'
import type { Trust } from './object.ts'
import { follows } from './record.ts'
import { settledCover } from './settle.ts'
import { inFlightBehindMax } from './tail.ts'

/** The objects of one segment, in order, and what stands by should one of them be damaged. */
export type IndexedSegment = {
  readonly history: string
  readonly segment: string
  readonly objects: readonly StoredObject[]
  readonly spare: readonly StoredObject[]
}

/** Objects whose numbers follow one another in one history. */
export type Stretch = {
  readonly history: string
  /** It follows the stretch before it without a hole, in another history. */
  readonly continues: boolean
  readonly segments: readonly IndexedSegment[]
}

export type LogIndex = {
  /** All that was listed, by sequence. */
  readonly objects: readonly StoredObject[]
  readonly stretches: readonly Stretch[]
  readonly strangers: readonly string[]
  /** Other objects with a number that is taken: not part of the log. */
  readonly rivals: readonly StoredObject[]
  /** Parts that were in flight when an archiver died: behind a number that never came, and acknowledged to nobody. */
  readonly leftovers: readonly StoredObject[]
}

type How = { readonly storage: Storage; readonly trust: Trust; readonly signal: AbortSignal }

/** What the store holds of one source's log, put in order. */
export async function readIndex(
  storage: Storage,
  source: string,
  trust: Trust,
  signal: AbortSignal,
): Promise<LogIndex> {
  const { objects, strangers } = await listLog(storage, source, signal)
  return putInOrder(objects, strangers, { storage, trust, signal })
}

/**
 * The index as it is by now, where the log may have grown: each history is listed behind its newest whole segment only,
 * however long the log is. What was there before that is taken to be there still: whoever reads it will see.
 */
export async function readIndexAgain(
  known: LogIndex,
  source: string,
  how: { readonly storage: Storage; readonly trust: Trust; readonly signal: AbortSignal },
): Promise<LogIndex> {
  const marks = new Map<string, string>()
  for (const { history, segments } of known.stretches) {
    const full = segments.findLast(({ objects }) => objects[0]?.kind === 'full')?.objects[0]
    if (full) marks.set(history, full.key)
  }
  const kept = known.objects.filter(({ history, key }) => key <= (marks.get(history) ?? ''))
  const fresh = await listLogBehind(how.storage, source, marks, how.signal)
  return putInOrder([...kept, ...fresh].sort(bySequence), known.strangers, how)
}

async function putInOrder(
  objects: readonly StoredObject[],
  strangers: readonly string[],
  { storage, trust, signal }: How,
): Promise<LogIndex> {
  const settled = await settleRivals(
    await settledCover(objects, { storage, trust, signal }),
    storage,
    trust,
    signal,
  )
  const cut = cutLeftovers(settled.chosen)
  const declared = await beginsDeclaredHole(cut, { storage, trust, signal })
  const { kept, leftovers } = declared ? { kept: settled.chosen, leftovers: [] } : cut
  return {
    objects,
    stretches: stretchesOf(kept, settled.covered),
    strangers,
    rivals: settled.rivals,
    leftovers,
  }
}

/** Of several parts with one number the chain names one: the one that goes on from the part before, and that the next goes on from. */
async function settleRivals(
  covered: Cover,
  storage: Storage,
  trust: Trust,
  signal: AbortSignal,
): Promise<Cover> {
  if (covered.rivals.length === 0) return covered
  const chosen = [...covered.chosen]
  const rivals: StoredObject[] = []
  for (const rival of covered.rivals) {
    const at = chosen.findIndex(({ sequenceFirst }) => sequenceFirst === rival.sequenceFirst)
    const present = chosen[at]
    const around = [chosen[at - 1], chosen[at + 1]]
    if (!present || rival.kind !== 'part' || present.kind !== 'part') {
      rivals.push(rival)
      continue
    }
    const fitOf = (candidate: StoredObject) =>
      chainFit(candidate, around, { storage, trust, signal })
    const better = (await fitOf(rival)) > (await fitOf(present))
    rivals.push(better ? present : rival)
    if (better) chosen[at] = rival
  }
  return { chosen, covered: covered.covered, rivals }
}

/** How well an object fits between its neighbours: links that match count first, then the epoch. */
async function chainFit(
  object: StoredObject,
  around: readonly (StoredObject | undefined)[],
  how: How,
): Promise<number> {
  const [before, after] = around
  const wanted = [object, ...[before, after].filter((one) => one !== undefined)]
  const heads = await readHeads(how.storage, wanted, how.trust, how.signal)
  const headOf = (one: StoredObject | undefined) => {
    const head = one && heads[wanted.indexOf(one)]
    return head && 'record' in head ? head : undefined
  }
  const own = headOf(object)
  if (!own) return -1
  const [previous, next] = [headOf(before), headOf(after)]
  const links = Number(!previous || follows(previous, own)) + Number(!next || follows(own, next))
  return links + own.record.epoch / 1e9
}

type Cut = { readonly kept: readonly StoredObject[]; readonly leftovers: readonly StoredObject[] }

/** A number is also left out where the source lost its log and the archiver said so. */
async function beginsDeclaredHole(cut: Cut, how: How): Promise<boolean> {
  const [before, after] = [cut.kept.at(-1), cut.leftovers[0]]
  if (!before || !after) return false
  const heads = await readHeads(how.storage, [before, after], how.trust, how.signal)
  const [a, b] = heads
  return a !== undefined && b !== undefined && 'link' in a && 'link' in b && follows(a, b)
}

function cutLeftovers(chosen: readonly StoredObject[]): Cut {
  const lastOf = (at: number) => (at < 0 ? 0 : (chosen[at]?.sequenceLast ?? 0))
  const holeAt = chosen.findLastIndex(({ sequenceFirst }, i) => sequenceFirst !== lastOf(i - 1) + 1)
  const behind = chosen.slice(holeAt)
  const inFlight =
    holeAt >= 0 &&
    behind.every(
      ({ kind, sequenceLast }) =>
        kind === 'part' && sequenceLast <= lastOf(holeAt - 1) + 1 + inFlightBehindMax,
    )
  if (!inFlight) return { kept: chosen, leftovers: [] }
  return { kept: chosen.slice(0, holeAt), leftovers: behind }
}

function stretchesOf(
  chosen: readonly StoredObject[],
  covered: readonly StoredObject[],
): readonly Stretch[] {
  type Open = { history: string; continues: boolean; segments: StoredObject[][] }
  const stretches: Open[] = []
  let before: StoredObject | undefined
  for (const object of chosen) {
    const inOrder = before !== undefined && object.sequenceFirst === before.sequenceLast + 1
    let stretch = stretches.at(-1)
    if (!stretch || !inOrder || before?.history !== object.history) {
      stretch = { history: object.history, continues: inOrder, segments: [] }
      stretches.push(stretch)
    }
    const last = stretch.segments.at(-1)
    if (last?.[0]?.segment === object.segment) last.push(object)
    else stretch.segments.push([object])
    before = object
  }
  const spares = Map.groupBy(covered, ({ history, segment }) => `${history}\n${segment}`)
  return stretches.map(({ history, continues, segments }) => ({
    history,
    continues,
    segments: segments.map((objects) => {
      const segment = objects[0]?.segment ?? ''
      return { history, segment, objects, spare: spares.get(`${history}\n${segment}`) ?? [] }
    }),
  }))
}
