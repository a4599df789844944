import { assert, Fault, isFault } from '#base/faults'
import type { Commit, LogBlock, LogReader, LogSegment, Position } from '#change'
import type { Storage } from '#storage'
import {
  type IndexedSegment,
  type LogIndex,
  readIndex,
  readIndexAgain,
  type Stretch,
} from './log-index.ts'
import { readHeads, type StoredObject } from './inventory.ts'
import { openObject, type Reading, readHead, unpack } from './object.ts'
import type { Piece } from './piece.ts'
import type { LogRecord } from './record.ts'

export type ReaderOptions = {
  readonly storage: Storage
  readonly source: string
  readonly reading: Reading
  readonly signal: AbortSignal
}

type SegmentEnds = {
  readonly indexed: IndexedSegment
  readonly head: LogRecord
  readonly last: LogRecord
}

/** Segments whose records are read at once, ahead of whoever walks through them. */
const headsAhead = 32

type WithSignal = { readonly signal: AbortSignal }

/** Where a moment lies in the log. */
export type Moment = {
  /** The last transaction before the first one stamped later; undefined when none stands before it. */
  readonly last: Commit | undefined
  /** The first transaction stamped later; undefined when there is none. */
  readonly next: Commit | undefined
}

export async function openReader(options: ReaderOptions): Promise<ArchiveReader> {
  const { storage, source, reading, signal } = options
  return new ArchiveReader(options, await readIndex(storage, source, reading, signal))
}

/** The archived log of one source, as it stood when it was listed; asking for an unknown segment lists its end again. */
export class ArchiveReader implements LogReader {
  readonly #storage: Storage
  readonly #source: string
  readonly #reading: Reading
  #index: LogIndex

  constructor(options: ReaderOptions, index: LogIndex) {
    this.#storage = options.storage
    this.#source = options.source
    this.#reading = options.reading
    this.#index = index
  }

  async *segments(first: Position, options: WithSignal): AsyncGenerator<LogSegment, void, void> {
    for await (const { indexed, head, last } of this.#behind(first, options.signal)) {
      yield {
        history: indexed.history,
        segment: indexed.segment,
        first: head.first,
        next: last.next,
        sizeBytes: last.offset + last.sizeBytes,
        complete: last.closes && head.offset === 0,
      }
    }
  }

  async read(
    segment: string,
    options: WithSignal & { readonly history?: string | undefined },
  ): Promise<AsyncIterable<Buffer> | undefined> {
    const { history, signal } = options
    let found = this.#find(segment, history)
    // A segment that is still in parts may have grown.
    if (!found || found.objects.some(({ kind }) => kind !== 'full')) {
      const how = { storage: this.#storage, trust: this.#reading, signal }
      this.#index = await readIndexAgain(this.#index, this.#source, how)
      found = this.#find(segment, history)
    }
    const offset = found?.objects[0]?.offset ?? 0
    if (offset > 0) {
      throw new Fault('gap', `read segment ${segment}: its first ${offset} bytes are missing`, {
        hint: 'Start from a base that was taken later.',
      })
    }
    return found && bytesOf(this.#pieces(found, signal))
  }

  /**
   * The archived log again as blocks, for another archive: from the segment that holds `from` on, up to its end or to
   * the first hole.
   */
  async *blocks(from: Position, options: WithSignal): AsyncGenerator<LogBlock, void, void> {
    const { signal } = options
    for await (const { indexed } of this.#behind(from, signal, false)) {
      for await (const { piece, offset, closes } of this.#pieces(indexed, signal)) {
        const { history, segment } = indexed
        const { bytes, first, next, commits } = piece
        yield { kind: 'block', history, segment, offset, bytes, first, next, commits, closes }
      }
    }
  }

  /** Where the log begins; behind a position: where it begins again after the next hole. */
  beginning(behind?: Position): Position | undefined {
    const { stretches } = this.#index
    const from = behind ? stretches.indexOf(this.#stretchesFrom(behind).at(-1) as Stretch) + 1 : 0
    const object = stretches[from]?.segments[0]?.objects[0]
    return object && { history: object.history, at: object.first }
  }

  /** Finds a moment in the log behind `first`: exact by the index of commits, whatever the source's clock did. */
  async moment(first: Position, timeUs: bigint, options: WithSignal): Promise<Moment> {
    const { signal } = options
    const stretches = this.#stretchesFrom(first)
    const objects = stretches.flatMap((s) => s.segments.flatMap((segment) => segment.objects))
    let low = 0
    for (let high = objects.length; low < high; ) {
      const middle = (low + high) >>> 1
      const record = await this.#head(objects[middle], signal)
      if (record && (record.latestUs ?? -1n) > timeUs) high = middle
      else low = middle + 1
    }
    // The latest time so far never falls, so that the first object beyond `timeUs` holds the first commit beyond it.
    const next = await this.#firstLater(objects[low], timeUs, first, signal)
    return { last: await this.#lastBefore(objects, low, next, first, signal), next }
  }

  #find(segment: string, history: string | undefined): IndexedSegment | undefined {
    const all = this.#index.stretches.flatMap(({ segments }) => segments)
    return all.findLast(
      (one) => one.segment === segment && (history === undefined || one.history === history),
    )
  }

  /** The stretch that holds `first`, and those that follow it without a hole. */
  #stretchesFrom(first: Position): readonly Stretch[] {
    const { stretches } = this.#index
    const at = stretches.findLastIndex(
      ({ history, segments }) =>
        history === first.history && (segments[0]?.objects[0]?.first ?? '') <= first.at,
    )
    if (at < 0) throw this.#gap(first, 'the archive begins later, or holds nothing of that history')
    const end = stretches.findIndex(({ continues }, i) => i > at && !continues)
    return stretches.slice(at, end < 0 ? undefined : end)
  }

  /** Segments behind `first` with their first and last records; where the log has a hole it throws `gap`, or ends. */
  async *#behind(
    first: Position,
    signal: AbortSignal,
    acrossHole = true,
  ): AsyncGenerator<SegmentEnds, void, void> {
    const stretches = this.#stretchesFrom(first)
    const following = this.#index.stretches.indexOf(stretches.at(-1) as Stretch) + 1
    const beyond = this.#index.stretches[following]
    const segments = stretches.flatMap((stretch) => stretch.segments)
    const skipped = segments.findLastIndex(
      ({ history, objects }) => history === first.history && (objects[0]?.first ?? '') <= first.at,
    )
    const wanted = segments.slice(Math.max(0, skipped))
    for (let at = 0; at < wanted.length; at += headsAhead) {
      const batch = wanted.slice(at, at + headsAhead)
      for (const found of await this.#ends(batch, signal)) {
        const only = segments.length === Math.max(0, skipped) + 1
        if (only && found.indexed.history === first.history && found.last.next < first.at) {
          throw this.#gap(first, `the archive ends at ${found.last.next}`)
        }
        yield found
      }
    }
    if (beyond && acrossHole) {
      const ends = segments.at(-1)
      throw this.#gap(first, `behind segment ${ends?.segment} the log has a hole`)
    }
  }

  /** First and last records of some segments. */
  async #ends(segments: readonly IndexedSegment[], signal: AbortSignal): Promise<SegmentEnds[]> {
    const objects = segments.flatMap((one) => [one.objects[0], one.objects.at(-1)])
    const unique = [...new Set(objects)].filter((object) => object !== undefined)
    const heads = await readHeads(this.#storage, unique, this.#reading, signal)
    const headOf = (object: StoredObject | undefined) => object && heads[unique.indexOf(object)]
    const ends: SegmentEnds[] = []
    for (const indexed of segments) {
      const [head, last] = [headOf(indexed.objects[0]), headOf(indexed.objects.at(-1))]
      assert(head && last, 'a segment has objects')
      if ('record' in head && 'record' in last) {
        ends.push({ indexed, head: head.record, last: last.record })
      } else {
        const error = 'error' in head ? head.error : 'error' in last ? last.error : undefined
        ends.push(await this.#endsOtherwise(indexed, error, signal))
      }
    }
    return ends
  }

  /** The same for a segment whose objects are gone or damaged: from those that were folded since, or from what was folded. */
  async #endsOtherwise(
    indexed: IndexedSegment,
    error: unknown,
    signal: AbortSignal,
  ): Promise<SegmentEnds> {
    if (!isFault(error, 'corrupt', 'forged', 'missing')) throw error
    const moved = error.code === 'missing' ? await this.#listAgain(indexed, signal) : undefined
    const objects = moved ?? indexed.objects.flatMap((one) => standIns(indexed, one) ?? [one])
    const head = await this.#head(objects[0], signal)
    const last = await this.#head(objects.at(-1), signal)
    assert(head && last, 'a segment has objects')
    return { indexed, head, last }
  }

  async *#pieces(
    indexed: IndexedSegment,
    signal: AbortSignal,
  ): AsyncGenerator<{ piece: Piece; offset: number; closes: boolean }, void, void> {
    let at = indexed.objects[0]?.offset ?? 0
    for (const object of indexed.objects) {
      try {
        for await (const found of this.#objectPieces(object, signal)) {
          if (found.offset !== at) throw this.#torn(object, at)
          at += found.piece.bytes.length
          yield found
        }
      } catch (error) {
        if (!isFault(error, 'corrupt', 'forged', 'missing')) throw error
        const moved = error.code === 'missing' ? await this.#listAgain(indexed, signal) : undefined
        const spare = moved ?? standIns(indexed, object)
        if (!spare) throw error
        for await (const found of this.#spared(spare, at, signal)) {
          at += found.piece.bytes.length
          yield found
        }
        if (moved) return
      }
    }
  }

  /** Parts that are gone were folded since they were listed: what the segment consists of now, when that is something else. */
  async #listAgain(
    indexed: IndexedSegment,
    signal: AbortSignal,
  ): Promise<readonly StoredObject[] | undefined> {
    this.#index = await readIndex(this.#storage, this.#source, this.#reading, signal)
    const now = this.#find(indexed.segment, indexed.history)?.objects
    const before = new Set(indexed.objects.map(({ key }) => key))
    return now?.some(({ key }) => !before.has(key)) ? now : undefined
  }

  /** Parts that were folded and are still there, in place of a damaged fold: from byte `at` of the segment on. */
  async *#spared(
    spare: readonly StoredObject[],
    at: number,
    signal: AbortSignal,
  ): AsyncGenerator<{ piece: Piece; offset: number; closes: boolean }, void, void> {
    for (const object of spare) {
      for await (const { piece, offset, closes } of this.#objectPieces(object, signal)) {
        const end = offset + piece.bytes.length
        if (end < at || (end === at && !closes)) continue
        const bytes = piece.bytes.subarray(Math.max(0, at - offset))
        yield { piece: { ...piece, bytes }, offset: Math.max(at, offset), closes }
      }
    }
  }

  async *#objectPieces(
    object: StoredObject,
    signal: AbortSignal,
  ): AsyncGenerator<{ piece: Piece; offset: number; closes: boolean }, void, void> {
    const opened = await openObject(this.#storage, object.key, this.#reading, signal)
    const { record } = opened.signed
    const end = record.offset + record.sizeBytes
    let offset = record.offset
    for await (const piece of unpack(opened, object.key)) {
      const behind = offset + piece.bytes.length
      yield { piece, offset, closes: record.closes && behind === end }
      offset = behind
    }
  }

  async #firstLater(
    object: StoredObject | undefined,
    timeUs: bigint,
    first: Position,
    signal: AbortSignal,
  ): Promise<Commit | undefined> {
    if (!object) return undefined
    const commits = await this.#commits(object, first, signal)
    return commits.find((commit) => commit.timeUs > timeUs)
  }

  async #lastBefore(
    objects: readonly StoredObject[],
    from: number,
    next: Commit | undefined,
    first: Position,
    signal: AbortSignal,
  ): Promise<Commit | undefined> {
    for (let i = Math.min(from, objects.length - 1); i >= 0; i--) {
      const object = objects[i]
      const record = await this.#head(object, signal)
      if (!object || !record?.commits) continue
      const commits = await this.#commits(object, first, signal)
      const upTo =
        next && i === from ? commits.findIndex(({ at }) => at === next.at) : commits.length
      const last = commits.slice(0, upTo).at(-1)
      if (last) return last
    }
    return undefined
  }

  async #commits(object: StoredObject, first: Position, signal: AbortSignal): Promise<Commit[]> {
    const commits: Commit[] = []
    for await (const { piece } of this.#objectPieces(object, signal)) commits.push(...piece.commits)
    return object.history === first.history ? commits.filter(({ at }) => at > first.at) : commits
  }

  async #head(
    object: StoredObject | undefined,
    signal: AbortSignal,
  ): Promise<LogRecord | undefined> {
    return object && (await readHead(this.#storage, object, this.#reading, signal)).record
  }

  #gap(first: Position, why: string): Fault {
    return new Fault('gap', `read the log of ${this.#source} from ${first.at}: ${why}`, {
      hint: 'redoubt window shows what can be restored.',
    })
  }

  #torn(object: StoredObject, at: number): Fault {
    return new Fault('gap', `read log object ${object.key}: it does not begin at byte ${at}`)
  }
}

/** Covered objects that together hold what a fold holds; undefined when some are gone. */
function standIns(
  indexed: IndexedSegment,
  object: StoredObject,
): readonly StoredObject[] | undefined {
  const inside = indexed.spare
    .filter(
      ({ key, sequenceFirst, sequenceLast }) =>
        key !== object.key &&
        sequenceFirst >= object.sequenceFirst &&
        sequenceLast <= object.sequenceLast,
    )
    .toSorted((a, b) => a.sequenceFirst - b.sequenceFirst || b.sequenceLast - a.sequenceLast)
  const picked: StoredObject[] = []
  let wanted = object.sequenceFirst
  for (const spare of inside) {
    if (spare.sequenceFirst !== wanted) continue
    picked.push(spare)
    wanted = spare.sequenceLast + 1
  }
  return wanted === object.sequenceLast + 1 && picked.length > 0 ? picked : undefined
}

async function* bytesOf(
  pieces: AsyncIterable<{ readonly piece: Piece }>,
): AsyncGenerator<Buffer, void, void> {
  for await (const { piece } of pieces) if (piece.bytes.length > 0) yield piece.bytes
}
