import { release } from '#base/bytes'
import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { systemTime, type Time } from '#base/time'
import type { LogBeat, LogBlock, Position } from '#change'
import type { Storage } from '#storage'
import type { ArchiveWriter } from './archive.ts'
import { admit, cutBlock, type End, endBehind, overlaps } from './continuity.ts'
import { FoldQueue } from './fold-queue.ts'
import type { Holder } from './holder.ts'
import { formatKey } from './names.ts'
import { type Degraded, Lease, type LeaseNote, type LeaseTail } from './lease.ts'
import { LeaseKeeper } from './lease-keeper.ts'
import {
  readHead,
  type Reading,
  type SealedObject,
  type Sealing,
  sealPart,
  type Trust,
} from './object.ts'
import { type Chain, draftPart, type Filling, fits } from './part.ts'
import { checkKnown } from './recheck.ts'
import type { LogRecord } from './record.ts'
import { Spool, type SpoolEntry } from './spool.ts'
import { inFlightBehindMax, type Linked, readTail, type Tail } from './tail.ts'

export type WriterOptions = {
  readonly storage: Storage
  readonly source: string
  readonly sealing: Sealing
  readonly trust: Trust
  /** Set where the vault's identity is at hand: parts can then be folded that the spool has lost. */
  readonly reading?: Reading | undefined
  /** Where packed parts wait for their fold: a folder of this source's own. */
  readonly spoolFolder: string
  /** Who takes the lease: see Lease. */
  readonly holder: Holder
  readonly log: Log
  readonly time?: Time | undefined
  readonly cutAfterMs?: number | undefined
  readonly partBytesMax?: number | undefined
  /** Object lock of folded objects, where the store has it. */
  readonly retainMs?: number | undefined
  /** How long parts outlive the object that they were folded into, by the store's clock. */
  readonly graceMs?: number | undefined
  /** How long a store may take to list what it has: so long what seems lost is looked for again. */
  readonly listingLateMs?: number | undefined
}

export const cutAfterMsDefault = 400
export const partBytesMaxDefault = 2 * 1024 * 1024
export const graceMsDefault = 15 * 60_000
export const listingLateMsDefault = 10_000
const listAgainMs = 1000
/** Parts on their way to the store at once. */
const sendingMax = inFlightBehindMax + 1
const partLevel = 1
const closingMs = 10_000

/** A part on its way: `stored` once the store has answered. */
type Sending = { readonly part: Linked; readonly cutMs: number; stored: boolean }

type Listener = (position: Position, shippedMs: number) => void

/** Takes the lease of a source, adopts what the archive holds of it, and goes on from there. See SPEC.md beside this file. */
export async function openWriter(options: WriterOptions, signal: AbortSignal): Promise<LogWriter> {
  const { storage, source, sealing, trust, holder } = options
  const stop = new AbortController()
  const { signer } = sealing
  const { keyring } = trust
  const lease = await Lease.acquire({ storage, source, holder, signer, keyring }, signal)
  const tail = await readWholeTail(options, lease, signal)
  // Parts in flight when their archiver died: nobody was told of them, and their numbers are needed again.
  for (const { key } of tail.orphans) await storage.delete(key, { signal })
  const spool = await Spool.open(options.spoolFolder)
  await dropStale(spool, tail)
  return new LogWriter(options, { lease, tail, spool, stop })
}

/**
 * The end of the log. A store may list what it has late: what the archiver of before had an answer for, or what is there
 * when asked for by its name, is waited for before it counts as lost.
 */
async function readWholeTail(
  options: WriterOptions,
  lease: Lease,
  signal: AbortSignal,
): Promise<Tail> {
  const { time = systemTime, listingLateMs = listingLateMsDefault } = options
  const how = { ...options, from: lease.tail?.from }
  const untilMs = time.monotonicMs() + listingLateMs
  for (;;) {
    const tail = await readTail(how, signal)
    const lacks = tail.sequence < (lease.tail?.sequence ?? 0)
    const late = lacks || (tail.orphans.length > 0 && (await isNextThere(tail, options, signal)))
    if (!late) return tail
    if (time.monotonicMs() >= untilMs) {
      const said = 'the newest log that was archived is not in the store any more'
      options.log.error(said, { source: options.source, before: lease.tail?.end.at })
      return tail
    }
    await time.sleep(Math.min(listAgainMs, listingLateMs), signal)
  }
}

/** Whether the part behind the end is there, though no listing shows it: its name follows from the part before it. */
async function isNextThere(tail: Tail, options: WriterOptions, signal: AbortSignal) {
  const last = tail.last?.record
  if (!last) return false
  const { source, history, next: first, closes, writerEpoch } = last
  const sequenceFirst = tail.sequence + 1
  const segments = closes ? tail.orphans.map(({ segment }) => segment) : [last.segment]
  for (const segment of new Set(segments)) {
    const offset = closes ? 0 : last.offset + last.sizeBytes
    const place = { history, segment, first, offset, sequenceFirst, sequenceLast: sequenceFirst }
    const key = formatKey({ kind: 'part', source, writerEpoch, ...place })
    if (await options.storage.stat(key, { signal })) return true
  }
  return false
}

/** Drops what the spool holds of segments that need no fold any more. */
async function dropStale(spool: Spool, tail: Tail): Promise<void> {
  const open = tail.unfolded.flatMap((group) => group.slice(0, 1))
  for (const { history, segment } of spool.segments()) {
    const needed = open.some((o) => o.record.history === history && o.record.segment === segment)
    if (!needed) await spool.drop(history, segment)
  }
}

/** The open end of one source's log archive. */
export class LogWriter implements ArchiveWriter {
  readonly exclusive: boolean
  readonly #options: WriterOptions
  readonly #time: Time
  readonly #lease: Lease
  readonly #spool: Spool
  readonly #folds: FoldQueue
  readonly #stop: AbortController
  /** Ends the waiting of parts that fill: they are not cut any more. */
  readonly #ending = new AbortController()
  readonly #keeper: LeaseKeeper
  readonly #heartbeat: Promise<void>
  readonly #listeners: Listener[] = []
  readonly #closers: (() => Promise<void>)[] = []
  readonly #sending: Sending[] = []
  readonly #background = new Set<Promise<void>>()
  #chain: Chain
  #end: End | undefined
  #durable: Position | undefined
  #durableSequence = 0
  #filling: Filling | undefined
  #holeAllowed = false
  #beat: LogBeat | undefined
  #completeUs: bigint | undefined
  #degraded: Degraded | undefined
  #failure: { readonly error: unknown } | undefined
  #waiters: (() => void)[] = []

  constructor(
    options: WriterOptions,
    parts: {
      readonly lease: Lease
      readonly tail: Tail
      readonly spool: Spool
      readonly stop: AbortController
    },
  ) {
    const { lease, tail, spool, stop } = parts
    this.#options = options
    this.#time = options.time ?? systemTime
    this.#lease = lease
    this.#spool = spool
    this.#stop = stop
    this.exclusive = lease.exclusive
    const last = tail.last?.record
    this.#chain = { sequence: tail.sequence, link: tail.link, latestUs: last?.latestUs }
    this.#end = last && endOf(last)
    this.#durable = last && { history: last.history, at: last.next }
    this.#durableSequence = tail.sequence
    this.#folds = new FoldQueue({
      ...options,
      spool,
      lease,
      graceMs: options.graceMs ?? graceMsDefault,
      signal: stop.signal,
      onFailure: (error) => this.#fail(error),
    })
    this.#folds.adopt(tail)
    this.#keeper = new LeaseKeeper(lease, {
      source: options.source,
      log: options.log,
      time: this.#time,
      says: () => ({ note: this.#note(), tail: this.#leaseTail(), degraded: this.#degraded }),
      each: () => this.#folds.sweep(),
    })
    this.#heartbeat = this.#keeper.run(stop.signal).catch((error: unknown) => {
      if (!stop.signal.aborted) this.#fail(error)
    })
  }

  get end(): Position | undefined {
    return this.#end && { history: this.#end.history, at: this.#end.at }
  }

  durable(): Position | undefined {
    return this.#durable
  }

  onDurable(listener: Listener): void {
    this.#listeners.push(listener)
  }

  /** Called when everything has ended. */
  onClosed(work: () => Promise<void>): void {
    this.#closers.push(work)
  }

  /** The next block may start anywhere: what lies between is lost, and the archive will say so. */
  allowGap(): void {
    this.#holeAllowed = true
  }

  /** Takes the source's word that its log ended there then; it travels with the next part, or with the lease. */
  beat(beat: LogBeat): void {
    this.#beat = beat
    this.#settleBeat()
  }

  degraded(state: Degraded | undefined): void {
    this.#degraded = state
    this.#keeper.tellNow()
  }

  async append(block: LogBlock, options: { readonly signal: AbortSignal }): Promise<void> {
    this.#throwIfFailed()
    const admission = admit(this.#end, block, this.#holeAllowed)
    const end = this.#end
    if (this.#holeAllowed && end && overlaps(end, block)) {
      await this.flush(options)
      await checkKnown(end, block, this.#options, options.signal)
      if (block.bytes.length > 0) this.#holeAllowed = false
    }
    if (admission.kind === 'known') return
    let { hole, after } = admission
    for (const run of cutBlock(admission.block, this.#partBytesMax)) {
      const filling = this.#filling
      if (filling && !fits(filling, run, after, this.#partBytesMax)) {
        await this.#cut(filling, options.signal)
      }
      this.#take(run, hole, after)
      this.#holeAllowed = false
      hole = false
      after = undefined
    }
    const filling = this.#filling
    if (filling && this.#end?.closed) await this.#cut(filling, options.signal)
  }

  async flush(options: { readonly signal: AbortSignal }): Promise<void> {
    if (this.#filling) await this.#cut(this.#filling, options.signal)
    // What is cut from here on is not waited for: a flush must end under load too.
    const last = this.#sending.at(-1)
    while (last && this.#sending.includes(last)) await this.#wait(options.signal)
    this.#throwIfFailed()
  }

  async untilFailed(options: { readonly signal: AbortSignal }): Promise<never> {
    for (;;) await this.#wait(options.signal)
  }

  /** Waits until every segment that ended is one object. For tests and orderly ends. */
  async settle(options: { readonly signal: AbortSignal }): Promise<void> {
    await this.flush(options)
    await this.#folds.idle()
    this.#throwIfFailed()
  }

  /** Ends what is under way and gives the lease back. What was not flushed is not archived: the source has it still. */
  async [Symbol.asyncDispose](): Promise<void> {
    const lost = isFault(this.#failure?.error, 'locked', 'conflict')
    this.#failure ??= { error: new Fault('interrupted', 'append to an archive that was closed') }
    this.#ending.abort(this.#failure.error)
    this.#wake()
    // What is under way is let go on, unless the store does not answer.
    const { error } = this.#failure
    const patience = setTimeout(() => this.#stop.abort(error), closingMs)
    await Promise.all(this.#background)
    await this.#folds.idle()
    clearTimeout(patience)
    this.#stop.abort(error)
    await this.#heartbeat
    await this.#spool[Symbol.asyncDispose]()
    await this.#keeper.end(lost)
    for (const work of this.#closers) await work()
  }

  get #partBytesMax(): number {
    return this.#options.partBytesMax ?? partBytesMaxDefault
  }

  #take(run: LogBlock, hole: boolean, after: Position | undefined): void {
    this.#end = endBehind(run)
    if (this.#filling) {
      this.#filling.blocks.push(run)
      this.#filling.bytes += run.bytes.length
      return
    }
    const filling = { blocks: [run], hole, after, bytes: run.bytes.length }
    this.#filling = filling
    this.#start(async () => {
      const { signal } = this.#ending
      await this.#time.sleep(this.#options.cutAfterMs ?? cutAfterMsDefault, signal)
      await this.#cut(filling, signal)
    })
  }

  /** Makes a part of what is being filled, once there is room on the way to the store, unless somebody did already. */
  async #cut(filling: Filling, signal: AbortSignal): Promise<void> {
    while (this.#filling === filling && this.#sending.length >= sendingMax) {
      await this.#wait(signal)
    }
    this.#throwIfFailed()
    if (this.#filling !== filling) return
    await this.#folds.room(signal)
    if (this.#filling !== filling) return
    this.#filling = undefined
    const sealed = this.#seal(filling)
    const { record } = sealed
    this.#chain = {
      sequence: record.sequenceLast,
      link: sealed.link,
      latestUs: record.latestUs,
    }
    const kept = { ...record, key: sealed.key, sizeBytes: 0, modifiedMs: 0 }
    const signer = this.#options.sealing.signer.id
    const part = { record, link: sealed.link, signer, key: sealed.key, kept }
    const sending: Sending = { part, cutMs: this.#time.monotonicMs(), stored: false }
    this.#sending.push(sending)
    this.#start((inner) => this.#send(sending, sealed, inner))
  }

  #seal(filling: Filling): SealedObject & { readonly plain: Buffer } {
    const { source, sealing } = this.#options
    const { epoch } = this.#lease
    const writerEpoch = this.exclusive ? undefined : epoch
    const completeUs = this.#completeUs
    const { draft, piece } = draftPart(filling, this.#chain, {
      source,
      epoch,
      writerEpoch,
      completeUs,
    })
    try {
      const sealed = sealPart(draft, piece, sealing, partLevel)
      // Joined of several blocks, the bytes are the part's own.
      if (filling.blocks.length > 1) release(piece.bytes)
      return sealed
    } catch (error) {
      // What was taken in is not archived: nothing may follow it.
      this.#fail(error)
      throw error
    }
  }

  async #send(
    sending: Sending,
    sealed: SealedObject & { readonly plain: Buffer },
    signal: AbortSignal,
  ): Promise<void> {
    const { storage } = this.#options
    const { key, record, link, plain } = sealed
    const ifAbsent = storage.can.conditionalPut
    await this.#keep({ ...record, link }, plain)
    try {
      await storage.put(key, sealed.bytes, ifAbsent ? { ifAbsent, signal } : { signal })
    } catch (error) {
      // A retried put meets its own first try; anything else in this place is another archiver's.
      if (!isFault(error, 'exists') || !(await this.#isOurs(sealed, signal))) throw error
    }
    sending.stored = true
    this.#advance()
  }

  /** The spool is a cache: a full disk costs time when the segment is folded, and nothing else. */
  async #keep(entry: SpoolEntry, plain: Buffer): Promise<void> {
    try {
      await this.#spool.add(entry, plain)
    } catch (error) {
      if (!isFault(error, 'full')) throw error
      this.#options.log.warn('the disk of the spool is full: parts will be read from the store', {
        segment: entry.segment,
      })
    }
  }

  async #isOurs(sealed: SealedObject, signal: AbortSignal): Promise<boolean> {
    const { storage, trust } = this.#options
    const info = await storage.stat(sealed.key, { signal })
    if (!info) return false
    const { link } = await readHead(storage, info, trust, signal)
    if (link === sealed.link) return true
    throw new Fault('conflict', `put log object ${sealed.key}: another archiver wrote it first`, {
      hint: 'Two archivers write this source; the one with the newer lease goes on.',
    })
  }

  /** Parts become durable in their order, whatever the order of the store's answers (SPEC.md, invariant 2). */
  #advance(): void {
    // Suspended and woken again: another archiver may have begun, and removed what was on its way here.
    this.#keeper.throwIfSilent()
    for (let head = this.#sending[0]; head?.stored; head = this.#sending[0]) {
      this.#sending.shift()
      const { record } = head.part
      this.#durable = { history: record.history, at: record.next }
      this.#durableSequence = record.sequenceLast
      this.#folds.take(head.part)
      for (const listener of this.#listeners) {
        listener(this.#durable, this.#time.monotonicMs() - head.cutMs)
      }
    }
    this.#settleBeat()
    this.#wake()
  }

  /** A beat is believed once all that the log held by then is taken in. */
  #settleBeat(): void {
    const beat = this.#beat
    const end = this.#end
    if (!beat || !end || beat.history !== end.history || beat.at > end.at) return
    this.#completeUs = beat.timeUs
    this.#beat = undefined
  }

  #leaseTail(): LeaseTail | undefined {
    const { from } = this.#folds
    const end = this.#durable
    const known = this.#lease.tail
    if (!end) return known && { ...known, from }
    // What was stored once and is gone stays known, until the log went on beyond it.
    const lacks = known?.end.history === end.history && known.end.at > end.at
    return lacks ? { ...known, from } : { sequence: this.#durableSequence, end, from }
  }

  #note(): LeaseNote | undefined {
    const idle = this.#sending.length === 0 && !this.#filling
    if (!idle || this.#completeUs === undefined || !this.#durable) return undefined
    return { end: this.#durable, completeUs: this.#completeUs }
  }

  #start(work: (signal: AbortSignal) => Promise<void>): void {
    const job: Promise<void> = work(this.#stop.signal)
      .catch((error: unknown) => this.#fail(error))
      .finally(() => this.#background.delete(job))
    this.#background.add(job)
  }

  #fail(error: unknown): void {
    if (this.#failure) return
    this.#failure = { error }
    this.#stop.abort(error)
    this.#ending.abort(error)
    this.#wake()
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure.error
  }

  async #wait(signal: AbortSignal): Promise<void> {
    this.#throwIfFailed()
    signal.throwIfAborted()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiters.push(resolve)
    const wake = () => resolve()
    signal.addEventListener('abort', wake, { once: true })
    await promise
    signal.removeEventListener('abort', wake)
    signal.throwIfAborted()
    this.#throwIfFailed()
  }

  #wake(): void {
    for (const resolve of this.#waiters.splice(0)) resolve()
  }
}

function endOf(record: LogRecord): End {
  return {
    history: record.history,
    segment: record.segment,
    offset: record.offset + record.sizeBytes,
    at: record.next,
    closed: record.closes,
  }
}
