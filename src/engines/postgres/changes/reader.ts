import { Fault, isFault } from '#base/faults'
import { systemTime, type Time } from '#base/time'
import type { LogBeat, Position } from '#change'
import type { Batch, ChangeReader, OpenChanges } from '#change/batch'
import { type Address, openChangeSender, openSession, type Session } from '../connection.ts'
import type { ServerFacts } from '../facts.ts'
import { formatHistory, formatLsn, fromAt, parseHistory, parseTimelineHistory } from '../lsn.ts'
import { decodeServerError, fromServer } from '../protocol/faults.ts'
import { encodeStandbyStatus, identifySystem, timelineHistory } from '../protocol/replication.ts'
import type { Wire } from '../protocol/wire.ts'
import { quoteText, settingsSql } from '../rows-sql.ts'
import { slotName } from '../slot.ts'
import { BatchBuilder, type Unfinished } from './batches.ts'
import { ChangeFlow } from './flow.ts'
import { checkSlot, readLogEnd, startStream } from './logical-slot.ts'
import { OpenTransactions, SpoolFull } from './open-transactions.ts'
import { PgoutputDecoder } from './pgoutput.kernel.ts'
import { publicationName } from './publication.ts'
import { readTypeNames } from './types.ts'

/** The server is told where we are at least so often, also while nobody pulls. */
const statusEveryMs = 5_000
/** An idle server is asked so often how far it is. */
const askEveryMs = 1_000
/** A walsender that works through a large transaction says nothing for a while; longer than this it is taken for gone. */
const silenceMaxMs = 120_000
const reconnectMaxMs = 300_000
const reconnectDelayMaxMs = 5_000
/** Small reads of a busy stream are gathered for so long. */
const coalesceMs = 5
/** `proto_version` 2, with streaming of open transactions, is known since 14. */
const streamsSince = 140_000

type Connected = {
  readonly wire: Wire
  readonly session: Session
  readonly after: Position
  readonly unfinished: Unfinished | undefined
}

/** Changes of one database through a logical slot. */
export class PostgresChangeReader implements ChangeReader {
  readonly #address: Address
  readonly #facts: ServerFacts
  readonly #options: OpenChanges
  readonly #slot: string
  readonly #time: Time
  #wire: Wire | undefined
  #received = 0n
  #acked = 0n
  #streaming: boolean

  constructor(address: Address, facts: ServerFacts, options: OpenChanges, time: Time = systemTime) {
    this.#address = address
    this.#facts = facts
    this.#options = options
    this.#slot = slotName(options.name)
    this.#time = time
    this.#streaming = options.directory !== undefined && facts.versionNumber >= streamsSince
  }

  async *read(options: {
    readonly signal: AbortSignal
  }): AsyncGenerator<Batch | LogBeat, void, void> {
    const { signal } = options
    let cursor = this.#options.after
    let unfinished: Unfinished | undefined
    let delayMs = 100
    let lostAtMs: number | undefined
    for (;;) {
      try {
        for await (const item of this.#stream(cursor, unfinished, signal)) {
          lostAtMs = undefined
          delayMs = 100
          if (item.kind === 'beat') cursor = { history: item.history, at: item.at }
          else {
            cursor = item.transactions.findLast((one) => one.position)?.position ?? cursor
            unfinished = addUnfinished(unfinished, item)
          }
          yield item
        }
      } catch (error) {
        signal.throwIfAborted()
        const now = this.#time.monotonicMs()
        lostAtMs ??= now
        if (error instanceof SpoolFull) {
          this.#streaming = false
          this.#options.log.warn(
            'keeps no more open transactions: the server keeps them from now on',
          )
        } else if (
          isFault(error, 'unreachable', 'timeout', 'locked') &&
          now - lostAtMs <= reconnectMaxMs
        ) {
          this.#options.log.warn('lost the change stream, connecting again', {
            cause: error.message,
          })
        } else throw error
      }
      await this.#time.sleep(delayMs * (0.5 + Math.random() / 2), signal)
      delayMs = Math.min(delayMs * 2, reconnectDelayMaxMs)
    }
  }

  async ack(upTo: Position): Promise<void> {
    const lsn = fromAt(upTo.at)
    if (lsn <= this.#acked) return
    this.#acked = lsn
    this.#sendStatus(false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#wire?.close()
    this.#wire = undefined
  }

  async *#stream(
    after: Position,
    unfinished: Unfinished | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<Batch | LogBeat, void, void> {
    const applicationName = this.#slot
    const wire = await openChangeSender(this.#address, { signal, applicationName })
    let timer: NodeJS.Timeout | undefined
    this.#wire = wire
    try {
      await using session = await openSession(this.#address, { signal, applicationName })
      const flow = await this.#begin({ wire, session, after, unfinished }, signal)
      wire.coalesce(coalesceMs, 'when-busy')
      timer = setInterval(() => this.#sendStatus(false), this.#statusMs())
      this.#sendStatus(true)
      yield* this.#pump(wire, session, flow, signal)
    } finally {
      clearInterval(timer)
      this.#wire = undefined
      wire.close()
    }
  }

  async *#pump(
    wire: Wire,
    session: Session,
    flow: ChangeFlow,
    signal: AbortSignal,
  ): AsyncGenerator<Batch | LogBeat, void, void> {
    let heardMs = this.#time.monotonicMs()
    let askedMs = 0
    for (;;) {
      const run = await nextRun(wire, signal)
      const now = this.#time.monotonicMs()
      if (run) {
        heardMs = now
        yield* flow.feed(run, signal)
        // What is here already goes into the same batches.
        for (let more = wire.pollRun(); more; more = wire.pollRun())
          yield* flow.feed(more.bytes, signal)
        yield* flow.flush()
        this.#received = flow.received
        if (flow.wantsReply()) this.#sendStatus(false)
      } else if (now - heardMs > silenceMaxMs) throw silent(this.#address.shown)
      if (now - askedMs < askEveryMs) continue
      askedMs = now
      // The server tells how far it has read its log, which is less than there is when it has much to read.
      flow.logEnds(await readLogEnd(session, signal))
      this.#sendStatus(true)
    }
  }

  async #begin(
    { wire, session, after, unfinished }: Connected,
    signal: AbortSignal,
  ): Promise<ChangeFlow> {
    const lsn = fromAt(after.at)
    const timeline = await this.#checkHistory(wire, after, signal)
    await checkSlot(session, { slot: this.#slot, after: lsn, address: this.#address, signal })
    const typeNames = await readTypeNames(session, signal)
    await wire.query(textSettings, signal, 'set up the change stream')
    const { directory, selection, batchRowsMax, batchBytesMax } = this.#options
    const open =
      this.#streaming && directory !== undefined
        ? await OpenTransactions.open(directory)
        : undefined
    await startStream(wire, {
      slot: this.#slot,
      sql: this.#startSql(lsn, open !== undefined),
      signal,
    })
    const builder = new BatchBuilder({ rowsMax: batchRowsMax, bytesMax: batchBytesMax })
    if (unfinished) builder.continue(unfinished)
    const decoder = new PgoutputDecoder({
      accepts: (name) => selection.accepts(name),
      form: 'pg/text',
      timeline,
      builder,
      typeNames,
    })
    return new ChangeFlow({ builder, decoder, open, history: formatHistory(timeline) })
  }

  #startSql(lsn: bigint, streaming: boolean): string {
    const options = [
      `proto_version '${streaming ? 2 : 1}'`,
      `publication_names ${quoteText(`"${publicationName(this.#options.name)}"`)}`,
      ...(streaming ? [`streaming 'on'`] : []),
    ]
    return `START_REPLICATION SLOT "${this.#slot}" LOGICAL ${formatLsn(lsn)} (${options.join(', ')})`
  }

  async #checkHistory(wire: Wire, after: Position, signal: AbortSignal) {
    const wanted = parseHistory(after.history)
    const identity = await identifySystem(wire, signal)
    if (identity.systemId !== wanted.systemId) {
      throw otherSystem(wanted.systemId, identity.systemId)
    }
    if (identity.timeline === wanted.timeline) return identity
    const text =
      identity.timeline > wanted.timeline
        ? await timelineHistory(wire, identity.timeline, signal)
        : ''
    const ancestor = parseTimelineHistory(text).find((one) => one.timeline === wanted.timeline)
    if (ancestor && ancestor.switchedAt >= fromAt(after.at)) return identity
    throw new Fault(
      'source-changed',
      `read changes from ${after.at} of timeline ${wanted.timeline} on: the server is on timeline ${identity.timeline}, which does not lead on from there`,
      { hint: 'A standby that lacked the last changes was promoted. Begin the copy anew.' },
    )
  }

  #statusMs(): number {
    const timeoutMs = Number(this.#facts.settings['wal_sender_timeout'] ?? 0)
    return timeoutMs > 0 ? Math.max(100, Math.min(statusEveryMs, timeoutMs / 4)) : statusEveryMs
  }

  #sendStatus(wantsReply: boolean): void {
    if (!this.#wire?.alive) return
    const written = this.#received > this.#acked ? this.#received : this.#acked
    const status = { written, flushed: this.#acked, nowMs: this.#time.now(), wantsReply }
    this.#wire.send('d', encodeStandbyStatus(status))
  }
}

/** The cluster that a position is of is not the one that answers. */
export function otherSystem(wanted: string, found: string): Fault {
  return new Fault(
    'source-changed',
    `read changes of system ${wanted}: the server is system ${found}`,
    {
      hint: 'It is another cluster. Begin the copy anew.',
    },
  )
}

function silent(shown: string): Fault {
  return new Fault('timeout', `read changes of ${shown}: nothing came for ${silenceMaxMs} ms`)
}

/** The next bytes; undefined when none came for a while. */
async function nextRun(wire: Wire, signal: AbortSignal): Promise<Buffer | undefined> {
  let run: { readonly bytes: Buffer } | undefined
  try {
    run = await wire.copyRun(signal, askEveryMs)
  } catch (error) {
    signal.throwIfAborted()
    if (isFault(error, 'timeout')) return undefined
    throw error
  }
  if (run) return run.bytes
  const message = await wire.next(signal)
  if (message?.type === 'E') throw streamError(message.body)
  if (message?.type === 'N' || message?.type === 'S') return undefined
  throw new Fault('unreachable', 'read changes: the server ended the stream')
}

function streamError(body: Buffer): Fault {
  const error = decodeServerError(body)
  const doing = 'read changes'
  if (error.sqlState === '58P01' || error.sqlState === '55000') {
    return new Fault('log-lost', `${doing}: ${error.message}`, {
      hint: 'The server removed log that was needed, or the slot. Begin the copy anew.',
    })
  }
  return fromServer(error, doing)
}

function addUnfinished(before: Unfinished | undefined, batch: Batch): Unfinished | undefined {
  const last = batch.transactions.at(-1)
  if (!last || last.ends) return undefined
  const known = before?.id === last.id && !last.begins ? before.changes : 0
  const changes = last.changes.reduce(
    (sum, change) => sum + ('rows' in change ? change.rows : 1),
    known,
  )
  return { id: last.id, changes }
}

// Text as every server reads it again, whatever its own settings are.
const textSettings = settingsSql([
  ['client_encoding', 'UTF8'],
  ['datestyle', 'ISO'],
  ['intervalstyle', 'postgres'],
  ['extra_float_digits', '3'],
  ['bytea_output', 'hex'],
  ['timezone', 'UTC'],
  ['lc_monetary', 'C'],
])
