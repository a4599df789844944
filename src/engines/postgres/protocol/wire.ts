import type { Duplex } from 'node:stream'
import { Fault } from '#base/faults'
import { decodeServerError, fromPostgres, fromServer } from './faults.ts'

/** One backend message: its type byte as a character, and its body without type and length. */
export type Message = { readonly type: string; readonly body: Buffer }

/** Rows of one result set, as text; undefined stands for null. */
export type Rows = readonly (readonly (string | undefined)[])[]

/** Bytes of CopyData messages as they came, heads included, and how many messages end in them. */
export type CopyRun = { readonly bytes: Buffer; readonly messages: number }

/** A message longer than this is taken for a broken stream. */
const messageBytesMax = 1 << 30
/** What waits to be read before the socket is paused. */
const bufferedBytesMax = 4 << 20
/** A server that says nothing for so long to a short question is taken for gone. */
const answerMaxMs = 120_000
/** Where what was read is written over later, a single message must not be longer than this. */
const bulkMessageBytesMax = 8 << 20
/** Reads smaller than this are gathered for a moment while the stream is busy. */
const smallReadBytes = 64 << 10
const headBytes = 5
const copyData = 'd'.charCodeAt(0)

/**
 * Frames of the PostgreSQL protocol on a connection that is authenticated and idle: one reader, who pulls.
 * https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
export class Wire {
  readonly #stream: Duplex
  readonly #what: string
  readonly #onDrained: (() => void) | undefined
  #chunks: Buffer[] = []
  #buffered = 0
  #failure: unknown
  #unread: Message | undefined
  #ended = false
  #wake: (() => void) | undefined
  #coalesceMs = 0
  #coalesceAlways = false
  #lastReadMs = 0
  #resumeTimer: NodeJS.Timeout | undefined
  /** Bytes of a CopyData message whose beginning has been handed out by `copyRun`. */
  #runLeft = 0

  /** `what` names the connection in messages; `onDrained` hears that nothing that was read is in use any more. */
  constructor(stream: Duplex, what: string, onDrained?: () => void) {
    this.#onDrained = onDrained
    this.#stream = stream
    this.#what = what
    stream.on('data', (chunk: Buffer) => this.#take(chunk))
    stream.on('error', (error) => this.#fail(error))
    stream.on('close', () => this.#fail(undefined))
    stream.on('end', () => this.#fail(undefined))
  }

  /**
   * Reads small messages at most once in so many milliseconds: each read takes a buffer of 64 KiB, however little came,
   * and what is made of it costs the same for one message as for fifty. With `when-busy` what comes alone is not held up.
   */
  coalesce(delayMs: number, when: 'always' | 'when-busy'): void {
    this.#coalesceMs = delayMs
    this.#coalesceAlways = when === 'always'
  }

  #take(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#buffered += chunk.length
    if (this.#buffered > bufferedBytesMax) this.#stream.pause()
    else if (this.#coalesceMs > 0 && chunk.length < smallReadBytes) this.#rest()
    this.#wake?.()
  }

  // A read shortly after the last one means a busy stream: what arrives in the next moment is taken in one go.
  #rest(): void {
    const now = performance.now()
    const busy = this.#coalesceAlways || now - this.#lastReadMs < 10
    this.#lastReadMs = now
    if (!busy || this.#resumeTimer) return
    this.#stream.pause()
    this.#resumeTimer = setTimeout(() => {
      this.#resumeTimer = undefined
      this.#lastReadMs = performance.now()
      if (this.#buffered > bufferedBytesMax) return
      // The stream itself read on during the rest, message by message, and would hand out one of them a rest: all that
      // it gathered comes in one `data` now.
      this.#stream.read()
      if (!this.#resumeTimer) this.#stream.resume()
    }, this.#coalesceMs)
  }

  #fail(error: unknown): void {
    if (!this.#ended) this.#takeLast()
    this.#ended = true
    this.#failure ??= error
    this.#wake?.()
  }

  // What came before the connection broke counts: it may be the last that the server ever said. A stream that broke gives
  // out what it holds, and emits it no more.
  #takeLast(): void {
    const buffered = this.#buffered
    const last: unknown = this.#stream.read()
    if (!(last instanceof Buffer) || this.#buffered > buffered) return
    this.#chunks.push(last)
    this.#buffered += last.length
  }

  /** Puts a message back: the next read returns it again. */
  unread(message: Message): void {
    this.#unread = message
  }

  /** As `poll`, but only a message of this type. */
  pollType(type: string): Message | undefined {
    if (this.#unread || this.#buffered < 5) return undefined
    return this.#peek(1)[0] === type.charCodeAt(0) ? this.poll() : undefined
  }

  /** The next message if it is here already. */
  poll(): Message | undefined {
    if (this.#unread) {
      const message = this.#unread
      this.#unread = undefined
      return message
    }
    if (this.#buffered < 5) return undefined
    const head = this.#peek(5)
    const size = head.readInt32BE(1)
    if (size < 4 || size > (this.#onDrained ? bulkMessageBytesMax : messageBytesMax)) {
      throw new Fault('protocol', `read from ${this.#what}: message of ${size} bytes`)
    }
    if (this.#buffered < size + 1) return undefined
    const whole = this.#cut(size + 1)
    if (this.#buffered <= bufferedBytesMax && !this.#resumeTimer) this.#stream.resume()
    return { type: String.fromCharCode(whole[0] ?? 0), body: whole.subarray(5) }
  }

  /** The next message; undefined when none came within `timeoutMs`. */
  async next(signal: AbortSignal, timeoutMs?: number): Promise<Message | undefined> {
    const deadline =
      timeoutMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs
    for (;;) {
      signal.throwIfAborted()
      const message = this.poll()
      if (message) return message
      if (this.#ended) throw this.#lost()
      if (this.#buffered === 0) this.#onDrained?.()
      // A message larger than the limit of what may wait must still come in whole.
      if (!this.#resumeTimer) this.#stream.resume()
      const leftMs = deadline - performance.now()
      if (leftMs <= 0) return undefined
      await this.#arrival(signal, leftMs)
    }
  }

  /** The next message that is no notice or parameter report; a server error throws. */
  async expect(signal: AbortSignal, doing: string, ...types: string[]): Promise<Message> {
    for (;;) {
      const message = await this.next(signal)
      if (!message || message.type === 'N' || message.type === 'S') continue
      if (message.type === 'E') throw fromServer(decodeServerError(message.body), doing)
      if (types.length > 0 && !types.includes(message.type)) {
        const wanted = types.join(' or ')
        throw new Fault('protocol', `${doing}: message ${message.type} came, not ${wanted}`)
      }
      return message
    }
  }

  /**
   * The next bytes of CopyData messages as they came, cut anywhere, for whoever passes them on; undefined when the next
   * message is another one. They hold until the next call. Silence for longer than `silenceMaxMs` is a `timeout`.
   */
  async copyRun(signal: AbortSignal, silenceMaxMs?: number): Promise<CopyRun | undefined> {
    const begunMs = silenceMaxMs === undefined ? 0 : performance.now()
    for (;;) {
      signal.throwIfAborted()
      const run = this.pollRun()
      if (run || this.#isOtherMessage()) return run
      if (this.#ended) throw this.#lost()
      if (this.#buffered === 0) this.#onDrained?.()
      if (!this.#resumeTimer) this.#stream.resume()
      const leftMs = begunMs + (silenceMaxMs ?? Number.POSITIVE_INFINITY) - performance.now()
      if (leftMs <= 0) {
        throw new Fault('timeout', `read from ${this.#what}: nothing came in ${silenceMaxMs} ms`)
      }
      await this.#arrival(signal, leftMs)
    }
  }

  /** As `copyRun`, of what is here already. */
  pollRun(): CopyRun | undefined {
    return this.#isOtherMessage() ? undefined : this.#cutRun()
  }

  #isOtherMessage(): boolean {
    return (
      this.#runLeft === 0 && this.#buffered >= headBytes && this.#peek(headBytes)[0] !== copyData
    )
  }

  // What is in the first chunk, up to another message, or to a head that is not whole.
  #cutRun(): CopyRun | undefined {
    const chunk = this.#chunks[0]
    if (!chunk) return undefined
    let messages = this.#runLeft > 0 && this.#runLeft <= chunk.length ? 1 : 0
    let at = this.#runLeft
    while (at + headBytes <= chunk.length && chunk[at] === copyData) {
      const size = chunk.readInt32BE(at + 1)
      if (size < 4 || size > messageBytesMax) {
        throw new Fault('protocol', `read from ${this.#what}: message of ${size} bytes`)
      }
      at += size + 1
      if (at <= chunk.length) messages += 1
    }
    this.#runLeft = Math.max(0, at - chunk.length)
    const size = Math.min(at, chunk.length)
    if (size === 0) return undefined
    const bytes = this.#cut(size)
    if (this.#buffered <= bufferedBytesMax && !this.#resumeTimer) this.#stream.resume()
    return { bytes, messages }
  }

  /** Passes on what `copyRun` gave. When this returns, the bytes are used no more. */
  async forward(bytes: Buffer, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#ended) throw this.#lost()
    const stop = () => this.#stream.destroy()
    signal.addEventListener('abort', stop, { once: true })
    try {
      await new Promise<void>((resolve, reject) => {
        this.#stream.write(bytes, (error) => (error ? reject(error) : resolve()))
      })
    } catch (error) {
      signal.throwIfAborted()
      throw this.#failure === undefined
        ? fromPostgres(error, `write to ${this.#what}`)
        : this.#lost()
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }

  /**
   * Runs a simple query to its end and returns the rows of each result set. For what is answered soon: a server that is
   * silent for long is a `timeout`.
   */
  async query(sql: string, signal: AbortSignal, doing = 'ask the server'): Promise<Rows[]> {
    this.sendQuery(sql)
    return this.finishQuery(signal, doing, answerMaxMs)
  }

  sendQuery(sql: string): void {
    this.send('Q', Buffer.from(`${sql}\0`, 'utf8'))
  }

  /** Reads rows up to the end of the running query. An error is thrown once the server is ready again. */
  async finishQuery(signal: AbortSignal, doing: string, silenceMaxMs?: number): Promise<Rows[]> {
    const sets: (string | undefined)[][][] = []
    let failure: unknown
    for (;;) {
      const message = await this.next(signal, silenceMaxMs)
      if (!message) throw new Fault('timeout', `${doing}: no answer in ${silenceMaxMs} ms`)
      if (message.type === 'E') failure ??= fromServer(decodeServerError(message.body), doing)
      if (message.type === 'T') sets.push([])
      if (message.type === 'D') sets.at(-1)?.push(decodeRow(message.body))
      if (message.type === 'Z') break
    }
    if (failure !== undefined) throw failure
    return sets
  }

  send(type: string, body: Uint8Array = Buffer.alloc(0)): boolean {
    const head = Buffer.allocUnsafe(5)
    head.write(type, 0, 'latin1')
    head.writeInt32BE(body.length + 4, 1)
    return this.#stream.write(Buffer.concat([head, body]))
  }

  /** As `send`, and waits while the socket's buffer is full. */
  async sendSlowly(type: string, body: Uint8Array, signal: AbortSignal): Promise<void> {
    if (this.send(type, body) || this.#ended) return
    await new Promise<void>((resolve, reject) => {
      const done = () => {
        for (const name of ['drain', 'close', 'error']) this.#stream.off(name, done)
        signal.removeEventListener('abort', stop)
        resolve()
      }
      const stop = () => {
        done()
        reject(signal.reason)
      }
      for (const name of ['drain', 'close', 'error']) this.#stream.on(name, done)
      signal.addEventListener('abort', stop, { once: true })
    })
  }

  get alive(): boolean {
    return !this.#ended
  }

  close(): void {
    clearTimeout(this.#resumeTimer)
    if (!this.#ended) this.send('X')
    this.#stream.destroy()
  }

  #lost(): unknown {
    const doing = `read from ${this.#what}`
    if (this.#failure !== undefined) return fromPostgres(this.#failure, doing)
    return new Fault('unreachable', `${doing}: the server closed the connection`)
  }

  #arrival(signal: AbortSignal, timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#wake = undefined
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = Number.isFinite(timeoutMs) ? setTimeout(done, timeoutMs) : undefined
      this.#wake = done
      signal.addEventListener('abort', done, { once: true })
    })
  }

  #peek(size: number): Buffer {
    const first = this.#chunks[0]
    if (first && first.length >= size) return first.subarray(0, size)
    const joined = Buffer.concat(this.#chunks)
    this.#chunks = [joined]
    return joined.subarray(0, size)
  }

  #cut(size: number): Buffer {
    this.#buffered -= size
    const first = this.#chunks[0]
    if (first && first.length > size) {
      this.#chunks[0] = first.subarray(size)
      return first.subarray(0, size)
    }
    const parts: Buffer[] = []
    let left = size
    while (left > 0) {
      const chunk = this.#chunks[0]
      if (!chunk) throw new Fault('protocol', `read from ${this.#what}: buffer ran dry`)
      if (chunk.length > left) {
        parts.push(chunk.subarray(0, left))
        this.#chunks[0] = chunk.subarray(left)
        left = 0
      } else {
        parts.push(chunk)
        this.#chunks.shift()
        left -= chunk.length
      }
    }
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts)
  }
}

/** Reads the cells of a DataRow as text. */
export function decodeRow(body: Buffer): (string | undefined)[] {
  const cells: (string | undefined)[] = []
  let at = 2
  for (let left = body.readInt16BE(0); left > 0; left -= 1) {
    const size = body.readInt32BE(at)
    at += 4
    cells.push(size < 0 ? undefined : body.toString('utf8', at, at + size))
    if (size > 0) at += size
  }
  return cells
}
