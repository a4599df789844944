import type { Duplex } from 'node:stream'
import { Reader } from '#base/bytes'
import { Fault, isAbort } from '#base/faults'
import { type Connection, connect } from './connection.ts'
import { type Endpoint, tlsOptions } from './endpoint.ts'
import {
  decodeColumnName,
  decodeError,
  decodeOk,
  decodeRow,
  packetMax,
  PacketWriter,
  readLength,
  type Result,
  type Row,
} from './packets.ts'
import type { Inlet } from './inlet.ts'
import { fromDriver, fromServer } from './server-error.ts'

type Options = { readonly signal: AbortSignal }

/** A run of one packet: packets of 16 MiB and more come in several. */
export type Piece = { readonly bytes: Buffer; readonly last: boolean }

/** What may wait unread before the socket is paused. */
const queueMaxBytes = 1024 * 1024
/** Rows of a result that is gathered in memory: catalog queries only. */
const resultMaxBytes = 512 * 1024 * 1024
export const commandQuery = 0x03
const okHeader = 0x00
const localHeader = 0xfb
const eofHeader = 0xfe
const errorHeader = 0xff

/**
 * One connection of the text protocol. The driver connects and authenticates; from then on the socket is ours, so that
 * bytes pass undecoded. One command at a time. An aborted signal destroys the connection.
 * https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html
 */
export class Session implements AsyncDisposable {
  readonly endpoint: Endpoint
  /** The server's number of this connection. */
  readonly id: number
  readonly #stream: Duplex
  #queue: Buffer[] = []
  #queuedBytes = 0
  #buffer: Buffer = Buffer.alloc(0)
  #pos = 0
  #failure: unknown
  #wake: (() => void) | undefined
  #sequence = 0
  #turn: Promise<void> = Promise.resolve()
  #silenceMaxMs: number | undefined
  readonly #rows: Inlet | undefined

  private constructor(endpoint: Endpoint, { id, stream, rows }: Connection) {
    this.endpoint = endpoint
    this.id = id
    this.#stream = stream
    this.#rows = rows
    if (rows) rows.onRows = () => this.#wake?.()
    for (const event of ['data', 'end', 'close', 'error']) stream.removeAllListeners(event)
    stream.on('data', (chunk: Buffer) => {
      this.#queue.push(chunk)
      this.#queuedBytes += chunk.length
      if (this.#queuedBytes >= queueMaxBytes) stream.pause()
      this.#wake?.()
    })
    stream.on('error', (error) => this.#fail(error))
    stream.on('close', () => this.#fail(undefined))
    stream.on('end', () => this.#fail(undefined))
    stream.resume()
  }

  /** Connects; falls back to a plain connection only in `preferred` mode. */
  static async open(endpoint: Endpoint, options: Options): Promise<Session> {
    const doing = `connect to ${endpoint.shown}`
    try {
      return new Session(endpoint, await connect(endpoint, tlsOptions(endpoint), options.signal))
    } catch (error) {
      const noTls = (error as { code?: string }).code === 'HANDSHAKE_NO_SSL_SUPPORT'
      if (!noTls || endpoint.tls !== 'preferred') throw fromDriver(error, doing)
    }
    try {
      return new Session(endpoint, await connect(endpoint, undefined, options.signal))
    } catch (error) {
      throw fromDriver(error, doing)
    }
  }

  /** From now on a server that says nothing for so long while it is waited for is taken for gone (a half-open connection). */
  limitSilence(ms: number): void {
    this.#silenceMaxMs = ms
  }

  /** Runs one statement and gathers its rows: for results of known size. Calls that overlap wait for their turn. */
  async query(sql: string | Buffer, options: Options, doing = ''): Promise<Result> {
    const before = this.#turn
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#turn = promise
    try {
      await before
      return await this.#query(sql, options, doing)
    } finally {
      resolve()
    }
  }

  async #query(sql: string | Buffer, options: Options, doing: string): Promise<Result> {
    using _ = this.guard(options.signal)
    this.send(commandQuery, typeof sql === 'string' ? Buffer.from(sql) : sql)
    const first = await this.packet()
    const what = doing || `run ${shorten(sql)}`
    if (first[0] === okHeader) return decodeOk(first)
    if (first[0] === localHeader) {
      this.#sendPackets(Buffer.alloc(0), this.#sequence + 1)
      await this.packet()
      throw new Fault('protocol', `${what}: the server asked for a local file`)
    }
    if (first[0] === errorHeader) throw fromServer(decodeError(first), what)
    return await this.#gather(new Reader(first, 'result header'), what)
  }

  /** Runs a statement of known length whose text comes in pieces: it is never whole in memory. */
  async queryStream(
    sizeBytes: number,
    pieces: AsyncIterable<Buffer>,
    options: Options,
    doing: string,
  ): Promise<Result> {
    using _ = this.guard(options.signal)
    const packets = new PacketWriter(1 + sizeBytes, (bytes) => this.#stream.write(bytes))
    packets.write(Buffer.from([commandQuery]))
    try {
      for await (const piece of pieces) {
        packets.write(piece)
        await this.drained()
        if (this.#failure !== undefined) throw this.#lost()
      }
      packets.end()
    } catch (error) {
      // Half a statement cannot be taken back.
      this.destroy(error)
      throw error
    }
    const answer = await this.packet()
    if (answer[0] === errorHeader) throw fromServer(decodeError(answer), doing)
    return decodeOk(answer)
  }

  /** The first row's cells as text; undefined without a row. */
  async one(sql: string, options: Options): Promise<readonly (string | null)[] | undefined> {
    const { rows } = await this.query(sql, options)
    return rows[0]?.map((cell) => cell?.toString() ?? null)
  }

  /** All rows with cells as text. */
  async texts(sql: string, options: Options): Promise<(string | null)[][]> {
    const { rows } = await this.query(sql, options)
    return rows.map((row) => row.map((cell) => cell?.toString() ?? null))
  }

  async #gather(header: Reader, what: string): Promise<Result> {
    const columns: string[] = []
    for (let count = readLength(header); count > 0; count--) {
      columns.push(decodeColumnName(await this.packet()))
    }
    await this.packet()
    const rows: Row[] = []
    let bytes = 0
    for (;;) {
      const packet = await this.packet()
      if (packet[0] === eofHeader && packet.length < 9) {
        return { columns, rows, affectedRows: 0, warnings: packet.readUInt16LE(1), info: '' }
      }
      if (packet[0] === errorHeader) throw fromServer(decodeError(packet), what)
      bytes += packet.length
      if (bytes > resultMaxBytes) {
        throw new Fault('protocol', `${what}: the result exceeds ${resultMaxBytes} bytes`)
      }
      rows.push(decodeRow(packet, columns.length))
    }
  }

  /** Starts a query whose row packets are then taken through `raw`; returns the number of columns. */
  async beginRows(sql: string, options: Options): Promise<number> {
    using _ = this.guard(options.signal)
    this.send(commandQuery, Buffer.from(sql))
    const first = await this.packet()
    if (first[0] === errorHeader) throw fromServer(decodeError(first), `run ${shorten(sql)}`)
    const count = readLength(new Reader(first, 'result header'))
    for (let left = count; left >= 0; left--) await this.packet()
    this.#rows?.open()
    return count
  }

  /**
   * Bytes as they come, at least one, packet headers included; with a socket of our own they last until the next
   * call. Under a `guard` of the caller's, for it is called often.
   */
  async raw(): Promise<Buffer> {
    if (this.#pos < this.#buffer.length) {
      const rest = this.#buffer.subarray(this.#pos)
      this.#pos = this.#buffer.length
      return rest
    }
    while (this.#queue.length === 0) {
      if (this.#rows?.waitingBytes) return this.#rows.take()
      if (this.#failure !== undefined) throw this.#lost()
      await this.#arrival()
    }
    const chunk = this.#queue.shift() ?? Buffer.alloc(0)
    this.#queuedBytes -= chunk.length
    if (this.#queuedBytes < queueMaxBytes) this.#stream.resume()
    return chunk
  }

  /** `LOAD DATA LOCAL INFILE`: sends `content` when the server asks for the file. */
  async load(sql: string, content: AsyncIterable<Buffer>, options: Options): Promise<Result> {
    using _ = this.guard(options.signal)
    const doing = `run ${shorten(sql)}`
    this.send(commandQuery, Buffer.from(sql))
    const first = await this.packet()
    if (first[0] === errorHeader) throw fromServer(decodeError(first), doing)
    if (first[0] !== localHeader) throw new Fault('protocol', `${doing}: no file was asked for`)
    let sequence = this.#sequence + 1
    try {
      for await (const bytes of content) {
        for (let at = 0; at < bytes.length; at += packetMax - 1) {
          this.#sendPackets(bytes.subarray(at, at + packetMax - 1), sequence++)
          await this.drained()
        }
        // The server refuses in the middle, say on a full disk: no more is sent then.
        if (this.#buffer.length > this.#pos || this.#queue.length > 0) break
      }
    } catch (error) {
      // The file cannot be taken back: what came so far must not be committed by accident.
      this.destroy(error)
      throw error
    }
    this.#sendPackets(Buffer.alloc(0), sequence)
    const last = await this.packet()
    if (last[0] === errorHeader) throw fromServer(decodeError(last), doing)
    return decodeOk(last)
  }

  /** Sends a command; what comes back is taken by `packet`, `pieces` or `raw`. */
  send(command: number, body: Buffer): void {
    if (this.#failure !== undefined) throw this.#lost()
    this.#rows?.close()
    this.#sendPackets(Buffer.concat([Buffer.from([command]), body]), 0)
  }

  /** Sends a payload outside of any command: a semi-synchronous acknowledgement. */
  sendAlone(payload: Buffer): void {
    if (this.#failure !== undefined) throw this.#lost()
    this.#sendPackets(payload, 0)
  }

  #sendPackets(payload: Buffer, sequence: number): void {
    for (let at = 0; ; at += packetMax) {
      const part = payload.subarray(at, at + packetMax)
      const header = Buffer.allocUnsafe(4)
      header.writeUIntLE(part.length, 0, 3)
      header[3] = sequence++ & 0xff
      this.#stream.write(part.length < 4096 ? Buffer.concat([header, part]) : header)
      if (part.length >= 4096) this.#stream.write(part)
      if (part.length < packetMax) return
    }
  }

  /** Waits until what was sent has left for the most part. */
  async drained(): Promise<void> {
    while (this.#stream.writableNeedDrain && this.#failure === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#stream.once('drain', resolve)
      this.#wake = resolve
      await promise
      this.#stream.off('drain', resolve)
    }
  }

  /** One whole packet, joined if it came in several. A view: copy what is kept. */
  async packet(): Promise<Buffer> {
    const first = await this.piece()
    if (first.last) return first.bytes
    const parts = [Buffer.from(first.bytes)]
    for (;;) {
      const next = await this.piece()
      parts.push(Buffer.from(next.bytes))
      if (next.last) return Buffer.concat(parts)
    }
  }

  /** The next run of a packet, at most 16 MiB. A view that the next call may overwrite nothing of, but pins its chunk. */
  async piece(): Promise<Piece> {
    return this.pieceAtHand() ?? (await this.#awaitPiece())
  }

  /** The next run when all of it has come; undefined otherwise. */
  pieceAtHand(): Piece | undefined {
    const left = this.#buffer.length - this.#pos
    if (left < 4) return undefined
    const size = this.#buffer.readUIntLE(this.#pos, 3)
    if (left < 4 + size) return undefined
    this.#sequence = this.#buffer.readUInt8(this.#pos + 3)
    const start = this.#pos + 4
    this.#pos = start + size
    return { bytes: this.#buffer.subarray(start, start + size), last: size < packetMax }
  }

  /** Nothing is read from the connection until `resume`. */
  pause(): void {
    this.#stream.pause()
  }

  resume(): void {
    this.#stream.resume()
  }

  async #awaitPiece(): Promise<Piece> {
    await this.#need(4)
    await this.#need(4 + this.#buffer.readUIntLE(this.#pos, 3))
    const piece = this.pieceAtHand()
    if (piece === undefined) throw new Fault('protocol', 'read packet: it has no end')
    return piece
  }

  async #need(size: number): Promise<void> {
    const rest = this.#buffer.subarray(this.#pos)
    if (rest.length >= size) return
    const parts = [rest]
    let have = rest.length
    while (have < size) {
      while (this.#queue.length === 0) {
        if (this.#failure !== undefined) throw this.#lost()
        await this.#arrival()
      }
      for (const chunk of this.#queue) parts.push(chunk)
      have += this.#queuedBytes
      this.#queue = []
      this.#queuedBytes = 0
      this.#stream.resume()
    }
    this.#buffer =
      parts.length === 2 && rest.length === 0 ? (parts[1] ?? rest) : Buffer.concat(parts)
    this.#pos = 0
  }

  async #arrival(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    const limitMs = this.#silenceMaxMs
    const timer =
      limitMs === undefined ? undefined : setTimeout(() => this.#giveUp(limitMs), limitMs)
    await promise
    clearTimeout(timer)
    this.#wake = undefined
  }

  #giveUp(silentMs: number): void {
    const said = `read from ${this.endpoint.shown}: the server said nothing for ${silentMs / 1000} s`
    this.destroy(new Fault('timeout', said))
  }

  #fail(error: unknown): void {
    this.#failure ??= error ?? new Error('the server closed the connection')
    this.#wake?.()
  }

  #lost(): unknown {
    const failure = this.#failure
    if (failure instanceof Fault || isAbort(failure)) return failure
    const said = failure instanceof Error ? failure.message : String(failure)
    return new Fault('unreachable', `read from ${this.endpoint.shown}: ${said}`, { cause: failure })
  }

  /** While a command runs, an abort destroys the connection: the protocol has no other way out. */
  guard(signal: AbortSignal): Disposable {
    signal.throwIfAborted()
    if (this.#failure !== undefined) throw this.#lost()
    const abort = () => this.destroy(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    return { [Symbol.dispose]: () => signal.removeEventListener('abort', abort) }
  }

  get alive(): boolean {
    return this.#failure === undefined
  }

  destroy(reason?: unknown): void {
    this.#failure ??= reason ?? new Error('the connection was closed')
    this.#stream.destroy()
    this.#wake?.()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failure === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#stream.once('close', resolve)
      this.#stream.end(Buffer.from([1, 0, 0, 0, 1]))
      const timer = setTimeout(() => this.#stream.destroy(), 1000)
      this.#stream.resume()
      await promise
      clearTimeout(timer)
    }
    this.destroy()
  }
}

function shorten(sql: string | Buffer): string {
  const text = typeof sql === 'string' ? sql : sql.subarray(0, 200).toString()
  const line = text.replaceAll(/\s+/g, ' ').slice(0, 80)
  return /\b(identified|password)\b/i.test(line) ? line.split(' ', 2).join(' ') : line
}
