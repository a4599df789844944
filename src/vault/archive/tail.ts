import { isFault } from '#base/faults'
import type { Storage } from '#storage'
import {
  type ListFrom,
  type ListMark,
  listLog,
  listLogFrom,
  readHeads,
  type StoredObject,
} from './inventory.ts'
import { readHead, type Trust } from './object.ts'
import { follows, noLink, type SignedRecord } from './record.ts'
import { settledCover } from './settle.ts'

/** An archiver has at most that many parts in flight behind the one that a crash lost. */
export const inFlightBehindMax = 3

/** An object in the chain, with its checked record. */
export type Linked = SignedRecord & { readonly key: string; readonly kept: StoredObject }

/** Where a source's archived log ends, as the store alone tells. */
export type Tail = {
  /** Number of the last part; 0 before the first. */
  readonly sequence: number
  readonly link: string
  readonly last: Linked | undefined
  /** Objects behind the last whole segment, segment by segment, in order: to be folded once their segment ends. */
  readonly unfolded: readonly (readonly Linked[])[]
  /** Parts behind a number that never arrived: what an archiver that died had in flight. They were acknowledged to nobody. */
  readonly orphans: readonly StoredObject[]
  /** Deletable after the grace period. */
  readonly covered: readonly StoredObject[]
  /** The newest whole segment. */
  readonly full: StoredObject | undefined
  /** From where on the next one need list; undefined as long as no segment is whole. */
  readonly from: ListFrom | undefined
}

/**
 * Finds the end of the chain (SPEC.md, invariants 1 and 6): the newest whole segment, then part after part as long as
 * each names the link of the one before. A fork is settled for the higher epoch.
 */
export async function readTail(
  how: {
    readonly storage: Storage
    readonly source: string
    readonly trust: Trust
    /** Where an archiver of before said that listing may begin. */
    readonly from?: ListFrom | undefined
  },
  signal: AbortSignal,
): Promise<Tail> {
  const { storage, source, trust, from } = how
  const listed = from && (await listLogFrom(storage, source, from, signal))
  // What it named is there, or all of the log is looked through.
  const found = listed?.some(
    ({ kind, history, first }) =>
      kind === 'full' && history === from?.history && first >= from.first,
  )
  const objects = found && listed ? listed : (await listLog(storage, source, signal)).objects
  const past = found && from ? from.past : []
  return tailOf(objects, { storage, trust, past, signal })
}

async function tailOf(
  objects: readonly StoredObject[],
  how: {
    readonly storage: Storage
    readonly trust: Trust
    readonly past: readonly ListMark[]
    readonly signal: AbortSignal
  },
): Promise<Tail> {
  const { storage, trust, signal } = how
  const { chosen, covered, rivals } = await settledCover(objects, { storage, trust, signal })
  const fullAt = chosen.findLastIndex(({ kind }) => kind === 'full')
  const full = chosen[fullAt]
  const start = full ? await linked(storage, full, trust, signal) : undefined
  const behind = full?.sequenceLast ?? 0
  const open = [...chosen.slice(fullAt + 1), ...rivals].filter((o) => o.sequenceFirst > behind)
  const heads = await readHeads(storage, open, trust, signal)
  const candidates: Linked[] = []
  for (const [i, object] of open.entries()) {
    const head = heads[i]
    if (head && 'record' in head) candidates.push({ ...head, key: object.key, kept: object })
    // Whatever is not signed is no part of the chain; a store that does not answer must not look like a shorter log.
    else if (head && !isFault(head.error, 'forged', 'corrupt', 'missing')) throw head.error
  }
  const chain = walk(start, candidates)
  const last = chain.at(-1) ?? start
  const inChain = new Set(chain.map(({ key }) => key))
  return {
    sequence: last?.record.sequenceLast ?? 0,
    link: last?.link ?? noLink,
    last,
    unfolded: bySegment(chain),
    orphans: open.filter(({ key, kind }) => kind === 'part' && !inChain.has(key)),
    covered,
    full,
    from: full && listFrom(full, covered, [...how.past, ...chosen.slice(0, fullAt)]),
  }
}

/** Histories of which it is known where they were left, at most: others are listed whole, which is only slower. */
const pastMax = 256

/**
 * From where on the end of the log is found: the newest whole segment, or the oldest object that is still to be deleted
 * before it. `log` are marks or objects of the log before that segment, in order.
 */
export function listFrom(
  full: StoredObject,
  deletable: readonly StoredObject[],
  log: readonly ListMark[],
): ListFrom {
  const oldest = deletable.reduce((a, b) => (b.sequenceFirst < a.sequenceFirst ? b : a), full)
  const { history, first } = oldest
  // What is to be deleted must be listed again.
  const open = new Set([history, full.history, ...deletable.map((object) => object.history)])
  const others = log.filter((mark) => !open.has(mark.history))
  const past = new Map(others.map((mark) => [mark.history, mark.first]))
  return {
    history,
    first,
    past: Array.from(past, ([one, at]) => ({ history: one, first: at })).slice(-pastMax),
  }
}

async function linked(
  storage: Storage,
  object: StoredObject,
  trust: Trust,
  signal: AbortSignal,
): Promise<Linked> {
  const head = await readHead(storage, object, trust, signal)
  return { ...head, key: object.key, kept: object }
}

function walk(start: Linked | undefined, candidates: readonly Linked[]): Linked[] {
  const chain: Linked[] = []
  const ordered = candidates.toSorted(
    (a, b) =>
      a.record.sequenceFirst - b.record.sequenceFirst ||
      b.record.sequenceLast - a.record.sequenceLast ||
      b.record.epoch - a.record.epoch,
  )
  for (const candidate of ordered) {
    const before = chain.at(-1) ?? start
    if (before ? follows(before, candidate) : begins(candidate)) chain.push(candidate)
  }
  return chain
}

/**
 * Whether a chain may begin with this object: the very first part, or the oldest one that a trim left. A low number
 * without the first is what was in flight when the first archiver died.
 */
function begins({ record }: SignedRecord): boolean {
  return record.sequenceFirst === 1 || record.sequenceFirst > 1 + inFlightBehindMax
}

function bySegment(chain: readonly Linked[]): Linked[][] {
  const groups: Linked[][] = []
  for (const object of chain) {
    const group = groups.at(-1)
    const [first] = group ?? []
    const same =
      first?.record.segment === object.record.segment &&
      first.record.history === object.record.history &&
      !object.record.hole
    if (group && same) group.push(object)
    else groups.push([object])
  }
  return groups
}
