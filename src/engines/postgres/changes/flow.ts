import { Fault } from '#base/faults'
import type { LogBeat } from '#change'
import type { Batch } from '#change/batch'
import { toAt } from '../lsn.ts'
import type { BatchBuilder } from './batches.ts'
import { Frames } from './frames.kernel.ts'
import type { OpenTransactions } from './open-transactions.ts'
import type { PgoutputDecoder } from './pgoutput.kernel.ts'

/** Microseconds between 1970 and 2000. */
const epochUs = 946_684_800_000_000n
/** Type, where the message is in the log, where the log ended, and when it was sent. */
const dataHeadBytes = 25
const keepaliveBytes = 18
const xlogData = 0x77
const keepalive = 0x6b
const streamStart = 0x53
const streamStop = 0x45
const streamCommit = 0x63
const streamAbort = 0x41
const relationMessage = 0x52
const typeMessage = 0x59

type Parts = {
  readonly builder: BatchBuilder
  readonly decoder: PgoutputDecoder
  /** Undefined where open transactions are not streamed. */
  readonly open: OpenTransactions | undefined
  readonly history: string
}

/** Where a server's log ended, and when by its clock. */
export type LogEnd = { readonly lsn: bigint; readonly timeUs: bigint }

/** Turns the bytes of a logical replication stream into batches and beats; knows no socket. */
export class ChangeFlow {
  readonly #parts: Parts
  readonly #frames = new Frames()
  /** How far the server says that it has sent everything, and where its log ended when we asked. */
  #sent: bigint | undefined
  #ends: LogEnd | undefined
  #wantsReply = false
  /** How far the server's log has come to us. */
  received = 0n

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** The log ended there: a beat tells it once the server has sent all up to it. */
  logEnds(end: LogEnd): void {
    this.#ends ??= end
  }

  /** Whether the server has asked for a status since this was asked last. */
  wantsReply(): boolean {
    const wants = this.#wantsReply
    this.#wantsReply = false
    return wants
  }

  async *feed(run: Buffer, signal: AbortSignal): AsyncGenerator<Batch, void, void> {
    const { builder } = this.#parts
    this.#frames.take(run)
    for (;;) {
      signal.throwIfAborted()
      const paused = this.#plain()
      if (builder.hasReady) yield* builder.take()
      if (!paused) return
      yield* this.#streamed(signal)
    }
  }

  /** What has come up to now, when nothing more is here. */
  *flush(): Generator<Batch | LogBeat, void, void> {
    const { builder, open, history } = this.#parts
    yield* builder.take()
    const sent = this.#sent
    const ends = this.#ends
    this.#sent = undefined
    if (sent === undefined || !ends || sent < ends.lsn) return
    // Within a transaction the server's word tells of more than came whole.
    if (builder.isOpen || open?.present !== undefined) return
    this.#ends = undefined
    yield { kind: 'beat', history, at: toAt(sent), timeUs: ends.timeUs }
  }

  /** Works through messages of committed transactions; true at one that needs more than that, which is the present one. */
  #plain(): boolean {
    const frames = this.#frames
    const { decoder, open } = this.#parts
    while (frames.next()) {
      const { bytes, at, end } = frames
      if (bytes[at] === keepalive) this.#keepalive()
      else if (bytes[at] === xlogData && end > at + dataHeadBytes) {
        const type = bytes[at + dataHeadBytes]
        const isStreaming =
          type === streamStart ||
          type === streamStop ||
          type === streamCommit ||
          type === streamAbort
        if (isStreaming) return true
        if (open?.present === undefined) decoder.message(bytes, at + dataHeadBytes, end, false)
        else if (!open.tryAdd(bytes, frames.head, end)) return true
      } else throw broken(`message ${bytes[at]} of ${end - at} bytes`)
    }
    return false
  }

  #keepalive(): void {
    const { bytes, at, end } = this.#frames
    if (end - at < keepaliveBytes) throw broken(`a keepalive of ${end - at} bytes`)
    const lsn = bytes.readBigUInt64BE(at + 1)
    if (lsn > this.received) this.received = lsn
    this.#sent = lsn
    if (bytes[at + 17] === 1) this.#wantsReply = true
  }

  /** The present message is one of streaming, or one that had no room. */
  async *#streamed(signal: AbortSignal): AsyncGenerator<Batch, void, void> {
    const { bytes, head, at, end } = this.#frames
    const { open } = this.#parts
    const from = at + dataHeadBytes
    const need = (size: number) => {
      if (end - from < size) throw broken(`streaming message ${bytes[from]} of ${end - from} bytes`)
    }
    if (!open) throw broken(`streaming message ${bytes[from]}, which nobody asked for`)
    switch (bytes[from]) {
      case streamStart:
        need(6)
        return open.begin(bytes.readUInt32BE(from + 1))
      case streamStop:
        return open.end()
      case streamAbort:
        need(9)
        return open.abort(bytes.readUInt32BE(from + 1), bytes.readUInt32BE(from + 5))
      case streamCommit: {
        need(30)
        const xid = bytes.readUInt32BE(from + 1)
        const ends = bytes.readBigUInt64BE(from + 14)
        return yield* this.#replay(
          xid,
          { end: ends, timeUs: bytes.readBigInt64BE(from + 22) + epochUs },
          signal,
        )
      }
      default:
        return open.add(bytes.subarray(head, end))
    }
  }

  async *#replay(
    xid: number,
    commit: { readonly end: bigint; readonly timeUs: bigint },
    signal: AbortSignal,
  ): AsyncGenerator<Batch, void, void> {
    const { builder, decoder, open } = this.#parts
    if (!open) throw broken(`a commit of transaction ${xid}, which did not come`)
    decoder.beginStreamed(xid, commit.timeUs)
    for await (const frames of open.read(xid, signal)) {
      while (frames.next()) {
        const from = frames.at + dataHeadBytes
        if (frames.end < from + 5) throw broken('a message without its transaction')
        const type = frames.bytes[from]
        // What a rolled back subtransaction learnt of tables is not said again: the server takes it for known.
        const isCatalog = type === relationMessage || type === typeMessage
        if (!isCatalog && open.isAborted(xid, frames.bytes.readUInt32BE(from + 1))) continue
        decoder.message(frames.bytes, from, frames.end, true)
      }
      if (builder.hasReady) yield* builder.take()
    }
    decoder.commitStreamed(commit.end)
    await open.remove(xid)
  }
}

function broken(what: string): Fault {
  return new Fault('protocol', `read the change stream: ${what}`)
}
