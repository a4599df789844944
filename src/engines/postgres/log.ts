import { Fault, isFault } from '#base/faults'
import { systemTime, type Time } from '#base/time'
import type { LogBeat, LogBlock, LogSource, Position } from '#change'
import type { LogOptions } from '#engines'
import { BlockCutter } from './block-cutter.ts'
import { type Address, openSession, openWalSender, type Session } from './connection.ts'
import {
  formatHistory,
  formatLsn,
  fromAt,
  historyFileName,
  parseHistory,
  parseLsn,
  parseTimelineHistory,
  segmentStart,
  toAt,
} from './lsn.ts'
import { decodeServerError, fromServer } from './protocol/faults.ts'
import {
  decodeStreamMessage,
  encodeStandbyStatus,
  identifySystem,
  timelineHistory,
  walSegmentBytes,
} from './protocol/replication.ts'
import type { Wire } from './protocol/wire.ts'
import { createSlot, dropSlot, isLost, readSlot, slotName } from './slot.ts'
import { LogWatch } from './watch.ts'

/** The server is told where we are at least so often, and asked whether it still lives. */
const statusEveryMs = 5_000
/** In `async` nobody waits for an acknowledgement: the server is told at most so often, so as not to write for each block. */
const ackEveryMs = 250
/** A server that says nothing for so long is taken for gone: half-open connections look like this. */
const silenceMaxMs = 10_000
/** A lost connection is tried again for so long before the failure is handed on. */
const reconnectMaxMs = 300_000
const reconnectDelayMaxMs = 5_000
/** Small messages that are here already travel as one block up to this size. */
const blockBytesMax = 256 << 10
const smallMessageBytes = 32 << 10
/** How long small reads are gathered: little beside what a part waits to be cut; where every commit waits for it, less. */
const coalescing = {
  async: { delayMs: 100, when: 'always' },
  strict: { delayMs: 1, when: 'when-busy' },
} as const
/** So far behind the server's log nothing is gathered: a socket that rests holds no more than its buffer. */
const behindMaxBytes = 128n << 10n
/** An idle stream looks so often whether there is something to say. */
const wakeEveryMs = 500

type Cursor = { readonly timeline: number; readonly lsn: bigint }

/**
 * The WAL of a cluster through a physical replication slot. With `strict`, the connection bears the slot's name as its
 * application_name, so that `synchronous_standby_names = 'FIRST 1 (redoubt_NAME)'` makes every commit wait for `ack`.
 */
export class PostgresLog implements LogSource, AsyncDisposable {
  readonly #address: Address
  readonly #systemId: string
  readonly #options: LogOptions
  readonly #slot: string
  readonly #time: Time
  #wire: Wire | undefined
  #timeline = 0
  #written = 0n
  /** Kept over reconnections: a commit may wait for a status that was lost with the connection. */
  #acked: Cursor = { timeline: 0, lsn: 0n }
  #lastStatusMs = 0
  #ackUnsent = false

  constructor(address: Address, systemId: string, options: LogOptions, time: Time = systemTime) {
    this.#address = address
    this.#systemId = systemId
    this.#options = options
    this.#slot = slotName(options.name)
    this.#time = time
  }

  async *read(
    after: Position | undefined,
    options: { readonly signal: AbortSignal },
  ): AsyncGenerator<LogBlock | LogBeat, void, void> {
    const ended = new AbortController()
    const signal = AbortSignal.any([options.signal, ended.signal])
    await using watch = new LogWatch({
      address: this.#address,
      slot: this.#slot,
      log: this.#options.log,
      strict: this.#options.durability === 'strict',
      onDegraded: this.#options.onDegraded,
    })
    try {
      let cursor = after === undefined ? undefined : this.#cursorOf(after)
      let delayMs = 100
      let lostAtMs: number | undefined
      for (;;) {
        try {
          for await (const item of this.#stream(cursor, watch, signal)) {
            lostAtMs = undefined
            delayMs = 100
            if (item.kind === 'block')
              cursor = this.#cursorOf({ history: item.history, at: item.next })
            yield item
          }
        } catch (error) {
          signal.throwIfAborted()
          if (!isFault(error, 'unreachable', 'timeout', 'locked')) throw error
          const now = this.#time.monotonicMs()
          lostAtMs ??= now
          if (now - lostAtMs > reconnectMaxMs) throw error
          this.#options.log.warn('lost the log stream, connecting again', { cause: error.message })
        }
        await this.#time.sleep(delayMs * (0.5 + Math.random() / 2), signal)
        delayMs = Math.min(delayMs * 2, reconnectDelayMaxMs)
      }
    } finally {
      ended.abort(new Fault('interrupted', 'read the log: the reader left'))
    }
  }

  async ack(upTo: Position): Promise<void> {
    const next = this.#cursorOf(upTo)
    const { timeline, lsn } = this.#acked
    if (next.timeline < timeline || (next.timeline === timeline && next.lsn <= lsn)) return
    this.#acked = next
    this.#ackUnsent = true
    if (this.#options.durability === 'strict') this.#sendStatus(false)
    else this.#sendLateAck(this.#time.monotonicMs())
  }

  #sendLateAck(nowMs: number): void {
    if (this.#ackUnsent && nowMs - this.#lastStatusMs >= ackEveryMs) this.#sendStatus(false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#wire?.close()
    this.#wire = undefined
  }

  #cursorOf(position: Position): Cursor {
    const { systemId, timeline } = parseHistory(position.history)
    if (systemId !== this.#systemId) throw changed(systemId, this.#systemId)
    return { timeline, lsn: fromAt(position.at) }
  }

  #historyName(timeline: number): string {
    return formatHistory({ systemId: this.#systemId, timeline })
  }

  /** One connection's worth of the log: ends when the server ended the stream in good order. */
  async *#stream(
    from: Cursor | undefined,
    watch: LogWatch,
    signal: AbortSignal,
  ): AsyncGenerator<LogBlock | LogBeat, void, void> {
    const wire = await openWalSender(this.#address, { signal, applicationName: this.#slot })
    this.#wire = wire
    try {
      const identity = await identifySystem(wire, signal)
      if (identity.systemId !== this.#systemId) throw changed(this.#systemId, identity.systemId)
      const segmentBytes = await walSegmentBytes(wire, signal)
      let cursor = await this.#begin(wire, from, identity, segmentBytes, signal)
      if (from === undefined && cursor.timeline > 1) {
        // An archive that begins here needs the history of its first timeline, too.
        const text = await timelineHistory(wire, cursor.timeline, signal)
        yield this.#historyBlock(cursor.timeline, text, cursor.lsn)
      }
      if (from !== undefined && from.timeline !== identity.timeline) {
        await this.#checkAncestor(wire, from, identity.timeline, signal)
      }
      for (;;) {
        yield* this.#streamTimeline(wire, cursor, segmentBytes, watch, signal)
        const next = await this.#nextTimeline(wire, signal)
        if (next === undefined) return
        const text = await timelineHistory(wire, next.timeline, signal)
        const start = segmentStart(next.lsn, segmentBytes)
        yield this.#historyBlock(next.timeline, text, start)
        this.#options.log.info('follows the server to a new timeline', {
          timeline: next.timeline,
          switchedAt: toAt(next.lsn),
        })
        cursor = { timeline: next.timeline, lsn: start }
      }
    } finally {
      wire.close()
      this.#wire = undefined
    }
  }

  // Without a position: where the slot keeps the log. The slot is made when it is not there, made anew when it is lost.
  async #begin(
    wire: Wire,
    from: Cursor | undefined,
    identity: { readonly timeline: number },
    segmentBytes: number,
    signal: AbortSignal,
  ): Promise<Cursor> {
    await using session = await openSession(this.#address, { signal })
    let slot = await readSlot(session, this.#slot, signal)
    if (slot && isLost(slot)) {
      if (from !== undefined) throw this.#lost(from)
      await dropSlot(wire, this.#slot, signal)
      slot = undefined
    }
    if (!slot) {
      await createSlot(wire, this.#slot, signal)
      slot = await readSlot(session, this.#slot, signal)
    }
    if (from !== undefined) {
      if (from.timeline === identity.timeline) await this.#refuseSetBack(session, from, signal)
      return from
    }
    const restart = slot?.restart
    if (restart === undefined) {
      throw new Fault('protocol', `read replication slot ${this.#slot}: it has no position`)
    }
    return { timeline: identity.timeline, lsn: segmentStart(restart, segmentBytes) }
  }

  /** A primary that is behind what it sent was set back to an older state: what it writes now is other log by the same name. */
  async #refuseSetBack(session: Session, from: Cursor, signal: AbortSignal): Promise<void> {
    const [row] = await session.query(
      `select case when not pg_is_in_recovery() then pg_current_wal_flush_lsn() end as lsn`,
      { signal, doing: 'look where the log ends' },
    )
    const lsn = row?.['lsn'] ?? undefined
    if (lsn === undefined || parseLsn(lsn) >= from.lsn) return
    throw new Fault(
      'refused',
      `follow the log from ${toAt(from.lsn)}: the server's log ends at ${toAt(parseLsn(lsn))}, before that: it was set back to an older state`,
      {
        hint: 'Protect it under a new --name; or let it be promoted, which begins a new timeline.',
      },
    )
  }

  async #checkAncestor(
    wire: Wire,
    from: Cursor,
    timeline: number,
    signal: AbortSignal,
  ): Promise<void> {
    // The first timeline has no history; of an older one than ours the log does not lead here.
    const text = timeline > from.timeline ? await timelineHistory(wire, timeline, signal) : ''
    const ancestors = parseTimelineHistory(text)
    if (ancestors.some((ancestor) => ancestor.timeline === from.timeline)) return
    throw new Fault(
      'source-changed',
      `follow the log of timeline ${from.timeline}: the server is on timeline ${timeline}, which does not descend from it`,
      { hint: 'Another cluster was promoted from an older point; a new base is due.' },
    )
  }

  async *#streamTimeline(
    wire: Wire,
    cursor: Cursor,
    segmentBytes: number,
    watch: LogWatch,
    signal: AbortSignal,
  ): AsyncGenerator<LogBlock | LogBeat, void, void> {
    // The records are walked from the border of a segment on, so that a commit cut by the position is seen whole.
    const start = segmentStart(await this.#boundedStart(wire, cursor, signal), segmentBytes)
    const sql = `START_REPLICATION SLOT "${this.#slot}" PHYSICAL ${formatLsn(start)} TIMELINE ${cursor.timeline}`
    wire.sendQuery(sql)
    if (!(await this.#streamBegins(wire, cursor, signal))) return
    watch.start(signal)
    this.#timeline = cursor.timeline
    this.#written = cursor.lsn
    const cutter = new BlockCutter(this.#historyName(cursor.timeline), cursor, start, segmentBytes)
    this.#sendStatus(true)
    let heardMs = this.#time.monotonicMs()
    for (;;) {
      const message = await wire.next(signal, wakeEveryMs)
      const now = this.#time.monotonicMs()
      watch.check()
      if (now - this.#lastStatusMs >= statusEveryMs) this.#sendStatus(true)
      this.#sendLateAck(now)
      if (!message) {
        if (now - heardMs > silenceMaxMs) throw silent(this.#address.shown)
        yield* watch.beats(this.#historyName(cursor.timeline), cutter.lsn)
        continue
      }
      heardMs = now
      if (message.type === 'E') throw this.#streamError(message.body, cursor)
      // CopyDone: the timeline ends here. CommandComplete: the server shuts down.
      if (message.type === 'c') {
        wire.send('c')
        return
      }
      if (message.type === 'C') throw shutDown(this.#address.shown)
      if (message.type !== 'd') continue
      yield* this.#take(wire, message.body, cutter)
      yield* watch.beats(this.#historyName(cursor.timeline), cutter.lsn)
    }
  }

  *#take(wire: Wire, body: Buffer, cutter: BlockCutter): Generator<LogBlock, void, void> {
    const parts: Buffer[] = []
    let first: bigint | undefined
    let serverEnd = 0n
    let size = 0
    for (let next: Buffer | undefined = body; next; ) {
      const message = decodeStreamMessage(next)
      if (message.kind === 'keepalive') {
        if (message.wantsReply) this.#sendStatus(false)
      } else {
        first ??= message.first
        serverEnd = message.serverEnd
        parts.push(message.bytes)
        size += message.bytes.length
      }
      // What came in the same read goes on in the same block, while it is small.
      if (size >= blockBytesMax || next.length > smallMessageBytes) break
      next = wire.pollType('d')?.body
    }
    if (first === undefined) return
    this.#written = first + BigInt(size)
    const { delayMs, when } = coalescing[this.#options.durability]
    wire.coalesce(serverEnd - this.#written > behindMaxBytes ? 0 : delayMs, when)
    const [only] = parts
    yield* cutter.cut(first, parts.length === 1 && only ? only : Buffer.concat(parts))
  }

  /** Where to begin on a timeline that ended: never behind its end. */
  async #boundedStart(wire: Wire, cursor: Cursor, signal: AbortSignal): Promise<bigint> {
    const identity = await identifySystem(wire, signal)
    if (identity.timeline === cursor.timeline) return cursor.lsn
    const history = await timelineHistory(wire, identity.timeline, signal)
    const end = parseTimelineHistory(history).find((a) => a.timeline === cursor.timeline)
    return end !== undefined && end.switchedAt < cursor.lsn ? end.switchedAt : cursor.lsn
  }

  /** False when the server has nothing more on this timeline and tells the next one at once. */
  async #streamBegins(wire: Wire, cursor: Cursor, signal: AbortSignal): Promise<boolean> {
    for (;;) {
      const message = await wire.next(signal, silenceMaxMs)
      if (!message) throw silent(this.#address.shown)
      if (message.type === 'E') throw this.#streamError(message.body, cursor)
      if (message.type === 'W') return true
      if (message.type === 'T') {
        wire.unread(message)
        return false
      }
    }
  }

  async #nextTimeline(wire: Wire, signal: AbortSignal): Promise<Cursor | undefined> {
    const sets = await wire.finishQuery(signal, 'end the timeline')
    const [timeline, lsn] = sets.flat()[0] ?? []
    if (timeline === undefined || lsn === undefined) return undefined
    return { timeline: Number(timeline), lsn: parseLsn(lsn) }
  }

  #historyBlock(timeline: number, text: string, start: bigint): LogBlock {
    return {
      kind: 'block',
      history: this.#historyName(timeline),
      segment: historyFileName(timeline),
      offset: 0,
      bytes: Buffer.from(text, 'utf8'),
      first: toAt(start),
      next: toAt(start),
      commits: [],
      closes: true,
    }
  }

  #sendStatus(wantsReply: boolean): void {
    if (!this.#wire?.alive || this.#timeline === 0) return
    this.#lastStatusMs = this.#time.monotonicMs()
    this.#ackUnsent = false
    // What is durable on a timeline that was left says nothing about the present one.
    const flushed = this.#acked.timeline === this.#timeline ? this.#acked.lsn : 0n
    const status = {
      written: this.#written,
      flushed,
      nowMs: this.#time.now(),
      wantsReply,
    }
    this.#wire.send('d', encodeStandbyStatus(status))
  }

  #streamError(body: Buffer, cursor: Cursor): Fault {
    const error = decodeServerError(body)
    const doing = `stream the log from ${toAt(cursor.lsn)}`
    // Removed segments (58P01, 55000 for an invalidated slot) both mean that the bytes are gone.
    if (error.sqlState === '58P01' || error.sqlState === '55000')
      return this.#lost(cursor, error.message)
    // A standby that is behind us, to be promoted or to catch up: later it has what we ask for.
    if (error.sqlState === 'XX000') {
      return new Fault('unreachable', `${doing}: ${error.message}`)
    }
    return fromServer(error, doing)
  }

  #lost(cursor: Cursor, said = `replication slot ${this.#slot} is lost`): Fault {
    return new Fault('log-lost', `stream the log from ${toAt(cursor.lsn)}: ${said}`, {
      hint: 'Take a new base; set max_slot_wal_keep_size higher than the log of the longest outage.',
    })
  }
}

function changed(before: string, now: string): Fault {
  return new Fault(
    'source-changed',
    `follow the log of system ${before}: the server is system ${now}`,
    { hint: 'It is another cluster. Protect it under another name, or take a new base.' },
  )
}

function silent(shown: string): Fault {
  return new Fault('timeout', `read the log of ${shown}: nothing came for ${silenceMaxMs} ms`)
}

function shutDown(shown: string): Fault {
  return new Fault('unreachable', `read the log of ${shown}: the server shuts down`)
}
