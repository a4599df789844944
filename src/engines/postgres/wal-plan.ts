import { Fault, isFault } from '#base/faults'
import { formatTimeUs } from '#base/time'
import type { Commit, LogReader, LogSegment, Position, Target } from '#change'
import {
  fromAt,
  historyFileName,
  parseHistory,
  parseSegmentName,
  parseTimelineHistory,
  toAt,
} from './lsn.ts'
import { type WalMark, WalWalker } from './wal-records.kernel.ts'

const historyBytesMax = 1 << 20

/** A line of timelines from that of the base to a later one, and where each but the last was left. */
export type TimelinePath = {
  readonly first: number
  readonly last: number
  readonly leftAt: ReadonlyMap<number, bigint>
}

/** Whether a timeline is on the path. */
export function isOnPath(path: TimelinePath, timeline: number): boolean {
  return timeline === path.last || path.leftAt.has(timeline)
}

/**
 * Reads which timelines are archived behind the base, and the paths to them, the newest first. There are several when the
 * cluster was promoted or restored since; those that branched off before the base lead nowhere from it.
 */
export async function readTimelinePaths(
  archive: LogReader,
  first: Position,
  signal: AbortSignal,
): Promise<TimelinePath[]> {
  const begin = parseHistory(first.history).timeline
  const timelines = new Set([begin])
  try {
    for await (const segment of archive.segments(first, { signal })) {
      timelines.add(parseHistory(segment.history).timeline)
    }
  } catch (error) {
    // A hole behind the target is never met, one before it is met again.
    if (!isFault(error, 'gap')) throw error
  }
  const paths: TimelinePath[] = []
  for (const last of [...timelines].toReversed()) {
    const path = await readPath(archive, begin, last, signal)
    if (path) paths.push(path)
  }
  return paths
}

async function readPath(
  archive: LogReader,
  first: number,
  last: number,
  signal: AbortSignal,
): Promise<TimelinePath | undefined> {
  if (last === first) return { first, last, leftAt: new Map() }
  const ancestors = parseTimelineHistory(await readSmall(archive, historyFileName(last), signal))
  const from = ancestors.findIndex(({ timeline }) => timeline === first)
  if (from < 0) return undefined
  const leftAt = ancestors
    .slice(from)
    .map(({ timeline, switchedAt }) => [timeline, switchedAt] as const)
  return { first, last, leftAt: new Map(leftAt) }
}

export async function readSmall(
  archive: LogReader,
  name: string,
  signal: AbortSignal,
): Promise<string> {
  const content = await archive.read(name, { signal })
  if (!content) throw new Fault('gap', `read the archived log: ${name} is missing`)
  const parts: Buffer[] = []
  let size = 0
  for await (const bytes of content) {
    size += bytes.length
    if (size > historyBytesMax) throw new Fault('corrupt', `read ${name}: ${size} bytes`)
    parts.push(bytes)
  }
  return Buffer.concat(parts).toString('utf8')
}

/** Where replay is to end. */
export type Cut = {
  readonly timeline: number
  /** Everything before belongs to what is restored, nothing from here on. */
  readonly lsn: bigint
}

/**
 * Follows the log in order and says where the target lies: at the start of the first commit stamped later, behind the
 * transaction or the named point, or at the position itself. Fed segment by segment, timeline by timeline.
 */
export class CutFinder {
  readonly #target: Target
  readonly #path: TimelinePath
  readonly #segmentBytes: number
  #walker: WalWalker | undefined
  #timeline: number
  /** The last transaction before the cut, and its timeline. */
  lastCommit: Commit | undefined
  lastCommitTimeline: number | undefined
  /** When the last of our heartbeats before the cut was written. */
  lastBeatUs: bigint | undefined
  cut: Cut | undefined

  constructor(target: Target, path: TimelinePath, segmentBytes: number) {
    this.#target = target
    this.#path = path
    this.#segmentBytes = segmentBytes
    this.#timeline = path.first
  }

  /** How far the log is whole. */
  get end(): Cut | undefined {
    return this.#walker && { timeline: this.#timeline, lsn: this.#walker.whole }
  }

  begin(timeline: number, first: bigint): void {
    if (this.#walker && timeline === this.#timeline && this.#walker.lsn === first) return
    if (timeline > this.#timeline) this.#endTimeline(this.#timeline)
    this.#timeline = timeline
    this.#walker = new WalWalker(first, this.#segmentBytes)
  }

  /** Takes the next bytes of the segment; true once the cut is known. */
  feed(bytes: Buffer): boolean {
    const walker = this.#walker
    if (!walker || this.cut) return this.cut !== undefined
    const before = walker.lsn
    const position = this.#target.kind === 'position' ? fromAt(this.#target.at) : undefined
    const after = before + BigInt(bytes.length)
    const leftAt = this.#path.leftAt.get(this.#timeline)
    const cutHere = position !== undefined && position < after && position <= (leftAt ?? position)
    const marks = walker.feed(
      cutHere && position >= before ? bytes.subarray(0, Number(position - before)) : bytes,
    )
    for (const mark of marks) if (this.#take(mark)) return true
    if (cutHere) this.cut = { timeline: this.#timeline, lsn: position }
    return this.cut !== undefined
  }

  // A position at the very end of a timeline, or at the end of the log, lies behind its last byte.
  #endTimeline(timeline: number): void {
    if (this.#target.kind !== 'position' || this.cut) return
    const leftAt = this.#path.leftAt.get(timeline)
    const position = fromAt(this.#target.at)
    if (leftAt !== undefined && position <= leftAt) this.cut = { timeline, lsn: position }
  }

  #take(mark: WalMark): boolean {
    const timeline = this.#timeline
    const leftAt = this.#path.leftAt.get(timeline)
    // What was written behind the fork of the next timeline is no part of the path.
    if (leftAt !== undefined && mark.start >= leftAt) return false
    if (mark.kind === 'beat') {
      this.lastBeatUs = mark.timeUs
      return false
    }
    const target = this.#target
    if (mark.kind === 'commit' && target.kind === 'time' && mark.timeUs > target.timeUs) {
      this.cut = { timeline, lsn: mark.start }
      return true
    }
    if (mark.kind === 'commit') {
      this.lastCommit = { at: toAt(mark.end), timeUs: mark.timeUs, id: mark.id }
      this.lastCommitTimeline = timeline
    }
    const found =
      (mark.kind === 'commit' && target.kind === 'commit' && mark.id === target.id) ||
      (mark.kind === 'point' && target.kind === 'name' && mark.id === target.name)
    if (found) this.cut = { timeline, lsn: mark.end }
    return found
  }

  /** Called at the end of the log: refuses a target that it does not reach. */
  finish(): void {
    if (this.cut) return
    const end = this.#walker?.lsn ?? 0n
    const target = this.#target
    if (target.kind === 'position') {
      const position = fromAt(target.at)
      if (position > end) throw unreached(`position ${target.at}`, `the log ends at ${toAt(end)}`)
      this.cut = { timeline: this.#timeline, lsn: position }
    }
    if (target.kind === 'commit')
      throw unreached(`transaction ${target.id}`, 'it is not in the log')
    if (target.kind === 'name') throw unreached(`'${target.name}'`, noPoint)
  }
}

const noPoint = 'it is no time and no position, no base has that name, and no point in the log'

function unreached(what: string, why: string): Fault {
  return new Fault('refused', `restore to ${what}: ${why}`, {
    hint: 'redoubt window shows what can be restored.',
  })
}

/** Refuses a target before the moment from which the base is consistent. */
export function checkReachable(cut: Cut | undefined, consistent: Position, target: Target): void {
  if (!cut) return
  const { timeline } = parseHistory(consistent.history)
  if (cut.timeline > timeline || cut.lsn >= fromAt(consistent.at)) return
  const asked = target.kind === 'time' ? formatTimeUs(target.timeUs) : toAt(cut.lsn)
  throw new Fault(
    'refused',
    `restore to ${asked}: the base is consistent from ${consistent.at} on`,
    {
      hint: 'Choose a later moment, or an earlier base.',
    },
  )
}

/** The timeline and start of a WAL segment in the archive; undefined for history files. */
export function segmentPlace(segment: LogSegment, segmentBytes: number) {
  return parseSegmentName(segment.segment, segmentBytes)
}
