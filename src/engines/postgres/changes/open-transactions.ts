import { createReadStream } from 'node:fs'
import { appendFile, mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, fromSystem } from '#base/faults'
import { Frames } from './frames.kernel.ts'

const prefix = 'open-transaction-'
const bufferBytes = 1 << 20
const readBytes = 1 << 20
/** What open transactions take on our disk at most; beyond it the server keeps them on its own. */
const spoolBytesMax = 64 * 2 ** 30
/** Subtransactions that were rolled back are remembered one by one. */
const abortedMax = 5_000_000

type Spooled = { sizeBytes: number; readonly aborted: Set<number> }

/** Transactions that came in part before they committed, each in a file as it came: nothing of them is given out yet. */
export class OpenTransactions {
  readonly #directory: string
  readonly #byXid = new Map<number, Spooled>()
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes)
  #fill = 0
  #xid: number | undefined
  #sizeBytes = 0
  #aborted = 0

  private constructor(directory: string) {
    this.#directory = directory
  }

  /** Empties the folder of what an earlier reader left: the server sends open transactions from their beginning. */
  static async open(directory: string): Promise<OpenTransactions> {
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      for (const name of await readdir(directory)) {
        if (name.startsWith(prefix)) await rm(join(directory, name))
      }
    } catch (error) {
      throw fromSystem(error, `prepare ${directory} for open transactions`)
    }
    return new OpenTransactions(directory)
  }

  get present(): number | undefined {
    return this.#xid
  }

  get wantsFlush(): boolean {
    return this.#fill > bufferBytes / 2
  }

  get count(): number {
    return this.#byXid.size
  }

  begin(xid: number): void {
    if (this.#xid !== undefined) throw broken(`a piece of ${xid} within one of ${this.#xid}`)
    this.#xid = xid
    if (!this.#byXid.has(xid)) this.#byXid.set(xid, { sizeBytes: 0, aborted: new Set() })
  }

  /** Keeps a message, its head included; one that is larger than the buffer is written at once. */
  async add(message: Buffer): Promise<void> {
    if (this.#fill + message.length > bufferBytes) await this.flush()
    if (message.length > bufferBytes) return this.#write(message)
    message.copy(this.#buffer, this.#fill)
    this.#fill += message.length
  }

  /** As `add`, where there is room. */
  tryAdd(bytes: Buffer, from: number, to: number): boolean {
    if (this.#fill + to - from > bufferBytes) return false
    bytes.copy(this.#buffer, this.#fill, from, to)
    this.#fill += to - from
    return true
  }

  async end(): Promise<void> {
    if (this.#xid === undefined) throw broken('the end of a piece that did not begin')
    await this.flush()
    this.#xid = undefined
  }

  async flush(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#fill)
    this.#fill = 0
    if (bytes.length > 0) await this.#write(bytes)
  }

  async #write(bytes: Buffer): Promise<void> {
    const xid = this.#xid
    const spooled = xid === undefined ? undefined : this.#byXid.get(xid)
    if (xid === undefined || !spooled) throw broken('a change of no transaction')
    this.#sizeBytes += bytes.length
    spooled.sizeBytes += bytes.length
    if (this.#sizeBytes > spoolBytesMax) throw new SpoolFull()
    try {
      await appendFile(this.#file(xid), bytes, { mode: 0o600 })
    } catch (error) {
      throw fromSystem(error, `keep open transaction ${xid} in ${this.#directory}`)
    }
  }

  /** All of a transaction is rolled back, or one subtransaction of it. */
  async abort(xid: number, subxid: number): Promise<void> {
    const spooled = this.#byXid.get(xid)
    // What was rolled back before any of it came is told of, too.
    if (!spooled) return
    if (xid === subxid) return this.remove(xid)
    spooled.aborted.add(subxid)
    this.#aborted += 1
    if (this.#aborted > abortedMax) throw new SpoolFull()
  }

  isAborted(xid: number, subxid: number): boolean {
    return this.#byXid.get(xid)?.aborted.has(subxid) === true
  }

  /** The messages of a transaction from its beginning, as frames that have taken in some more each time. */
  async *read(xid: number, signal: AbortSignal): AsyncGenerator<Frames, void, void> {
    const spooled = this.#byXid.get(xid)
    if (!spooled || spooled.sizeBytes === 0) return
    const frames = new Frames()
    let read = 0
    try {
      const stream = createReadStream(this.#file(xid), { highWaterMark: readBytes, signal })
      for await (const bytes of stream as AsyncIterable<Buffer>) {
        read += bytes.length
        frames.take(bytes)
        yield frames
      }
    } catch (error) {
      signal.throwIfAborted()
      throw fromSystem(error, `read open transaction ${xid} in ${this.#directory}`)
    }
    if (read !== spooled.sizeBytes || frames.left > 0) {
      throw new Fault(
        'corrupt',
        `read open transaction ${xid} in ${this.#directory}: ${read} of ${spooled.sizeBytes} bytes`,
      )
    }
  }

  async remove(xid: number): Promise<void> {
    const spooled = this.#byXid.get(xid)
    if (!spooled) return
    this.#sizeBytes -= spooled.sizeBytes
    this.#aborted -= spooled.aborted.size
    this.#byXid.delete(xid)
    try {
      await rm(this.#file(xid), { force: true })
    } catch (error) {
      throw fromSystem(error, `remove open transaction ${xid} in ${this.#directory}`)
    }
  }

  #file(xid: number): string {
    return join(this.#directory, `${prefix}${xid}`)
  }
}

/** More is open than we keep: the server is asked to keep it. */
export class SpoolFull extends Error {}

function broken(what: string): Fault {
  return new Fault('protocol', `read the change stream: ${what}`)
}
