import { readFileSync } from 'node:fs'
import { Fault } from '#base/faults'

// The part of the WebAssembly interface that is used here; node's own types leave it to the DOM's.
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object
  Memory: new (size: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer }
  Instance: new (module: object, imports: object) => { readonly exports: unknown }
}

type Exports = {
  takeRows(
    from: number,
    end: number,
    columns: number,
    out: number,
    outEnd: number,
    largest: number,
  ): number
}

const pageBytes = 65_536
const inputAt = pageBytes
const inputBytes = 512 * 1024
const slackBytes = pageBytes
const outputAt = inputAt + inputBytes + slackBytes
/** A packet may double, and each of its cells brings a byte. */
const outputBytes = 2 * inputBytes + 4 * pageBytes
const memoryPages = (outputAt + outputBytes + slackBytes) / pageBytes

let compiled: object | undefined

function compile(): object {
  if (compiled) return compiled
  const file = new URL('../../../build/rows.wasm', import.meta.url)
  try {
    compiled = new WebAssembly.Module(readFileSync(file))
  } catch (cause) {
    throw new Fault('io', `load ${file.pathname}: not built or damaged`, {
      cause,
      hint: 'Run `npm run build`, or start Redoubt through its launcher, which does.',
    })
  }
  return compiled
}

/** What one run made of the packets given. */
export type Taken = {
  /** How many bytes of the input are done. */
  readonly consumed: number
  readonly rows: number
  /** A view of the kernel's memory: copy it before the next run. */
  readonly text: Buffer
  /** The next packet is none of a common row: the end, an error, or a long one. */
  readonly stopped: boolean
}

/** The row loop in WebAssembly, with a memory of its own. */
export class RowKernel {
  readonly #calls: Exports
  readonly #memory: Buffer

  constructor() {
    const memory = new WebAssembly.Memory({ initial: memoryPages, maximum: memoryPages })
    const instance = new WebAssembly.Instance(compile(), { env: { memory } })
    this.#calls = instance.exports as Exports
    this.#memory = Buffer.from(memory.buffer)
  }

  /** Takes as many whole packets as there are in the first part of `bytes`, from `start` on. */
  take(bytes: Buffer, start: number, columns: number, largest: number): Taken {
    const size = bytes.copy(this.#memory, inputAt, start, start + inputBytes)
    const outputEnd = outputAt + outputBytes
    const end = inputAt + size
    const at = this.#calls.takeRows(inputAt, end, columns, outputAt, outputEnd, largest)
    const reason = this.#memory.readUInt32LE(8)
    if (reason === 3) throw new Fault('protocol', 'read rows: a packet is no row of this result')
    const outEnd = this.#memory.readUInt32LE(0)
    return {
      consumed: at - inputAt,
      rows: this.#memory.readUInt32LE(4),
      text: this.#memory.subarray(outputAt, outEnd),
      stopped: reason === 2,
    }
  }
}
