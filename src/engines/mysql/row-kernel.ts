import { Fault } from '#base/faults'
import { createWebMemory, loadWasm } from '#base/wasm'

type Exports = {
  readonly takeRows: (
    from: number,
    end: number,
    columns: number,
    out: number,
    outEnd: number,
    largest: number,
    digested: number,
  ) => number
  readonly beginLine: () => void
  readonly addToLine: (at: number, size: number) => number
  readonly endLine: (at: number, size: number) => void
  readonly clearDigest: () => void
}

const pageBytes = 65_536
const inputAt = pageBytes
const inputBytes = 512 * 1024
const slackBytes = pageBytes
const outputAt = inputAt + inputBytes + slackBytes
/** A packet may double, and each of its cells brings a byte. */
const outputBytes = 2 * inputBytes + 4 * pageBytes
const memoryPages = (outputAt + outputBytes + slackBytes) / pageBytes

/** What one run came to. */
export type Taken = {
  readonly rows: number
  /** Nothing more can be done now with what was put in: it wants the rest of a packet, or `stopped`. */
  readonly idle: boolean
  /** The next packet is none of a common row: the end, an error, or a long one. */
  readonly stopped: boolean
}

/** The row loop in WebAssembly, with a memory of its own: one result at a time. */
export class RowKernel {
  readonly #calls: Exports
  readonly #memory: Buffer
  #from = inputAt
  #end = inputAt
  #out = outputAt

  constructor() {
    const memory = createWebMemory(memoryPages)
    this.#calls = loadWasm('rows', memory) as Exports
    this.#memory = Buffer.from(memory.buffer)
  }

  /** Bytes that were put in and not taken yet. */
  get waitingBytes(): number {
    return this.#end - this.#from
  }

  /** Copies as many bytes as there is room for behind those that wait; returns how many. */
  put(bytes: Buffer, start: number): number {
    if (this.#from > inputAt) {
      this.#memory.copyWithin(inputAt, this.#from, this.#end)
      this.#end -= this.#from - inputAt
      this.#from = inputAt
    }
    const size = bytes.copy(
      this.#memory,
      this.#end,
      start,
      start + inputAt + inputBytes - this.#end,
    )
    this.#end += size
    return size
  }

  /** Takes as many whole packets as there are, or as have room in the output; so many cells of each go into the digest. */
  run(columns: number, largest: number, digested: number): Taken {
    const outputEnd = outputAt + outputBytes
    const { takeRows } = this.#calls
    this.#from = takeRows(this.#from, this.#end, columns, this.#out, outputEnd, largest, digested)
    const reason = this.#memory.readUInt32LE(8)
    if (reason === 3) throw new Fault('protocol', 'read rows: a packet is no row of this result')
    this.#out = this.#memory.readUInt32LE(0)
    return { rows: this.#memory.readUInt32LE(4), idle: reason !== 1, stopped: reason === 2 }
  }

  /** Size of the lines that were made and not taken yet. */
  get textBytes(): number {
    return this.#out - outputAt
  }

  /** The lines that were made: a view, right until the next run. */
  takeText(): Buffer {
    const text = this.#memory.subarray(outputAt, this.#out)
    this.#out = outputAt
    return text
  }

  /** The sum of the XXH64 of each line that was digested since the last `clear`. */
  get digest(): bigint {
    return this.#memory.readBigUInt64LE(16)
  }

  /** A line that another made goes into the digest by pieces; while it lasts nothing else may wait here. */
  beginLine(): void {
    this.#calls.beginLine()
  }

  addToLine(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      at += this.put(bytes, at)
      this.#from = this.#calls.addToLine(this.#from, this.waitingBytes)
    }
  }

  endLine(): void {
    this.#calls.endLine(this.#from, this.waitingBytes)
    this.#from = this.#end = inputAt
  }

  /** Forgets what waits: another result begins. */
  clear(): void {
    this.#calls.clearDigest()
    this.#out = outputAt
    this.#from = this.#end = inputAt
  }

  /** Gives back what waits. */
  drain(): Buffer {
    const rest = Buffer.from(this.#memory.subarray(this.#from, this.#end))
    this.#from = this.#end = inputAt
    return rest
  }
}
