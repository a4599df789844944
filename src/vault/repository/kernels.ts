import { inspectorScratchBytes, type InspectorRoom, type WebMemory } from '#base/blocks'
import { createWebMemory, loadWasm } from '#base/wasm'
import { copyBytes } from './native-calls.ts'
import { polynomialDegree, removalTables } from './polynomial.ts'

type Exports = {
  findCut(p: number, end: number, mask: number): number
  tagBegin(key: number): void
  tagUpdate(p: number, length: number): void
  tagEnd(p: number, length: number, key: number, out: number): void
}

const pageBytes = 65_536
const halvesAt = 12_288
/** One table by half bytes: seven times 16 entries. */
const halfBytes = 112
const keyAt = 20_480
const tagAt = keyAt + 32
/** What inspectors of foreign blocks work with. */
const scratchAt = 32_768
/** Where the memory that belongs to the caller begins. */
export const kernelDataAt = pageBytes

/** Bytes that are brought in at a time when the tag of foreign memory is computed. */
const windowBytes = 128 * 1024

/**
 * The byte loops in WebAssembly with a memory of their own. Not shared between threads. The memory never
 * moves; `bytes` from `kernelDataAt` on is the caller's, save a window at its very end.
 */
export class Kernels {
  readonly bytes: Buffer
  readonly #calls: Exports
  readonly #windowAt: number
  readonly #window: Buffer
  readonly #memory: WebMemory
  #polynomial: bigint | undefined

  constructor(dataBytes = 0) {
    const pages = 1 + Math.ceil((dataBytes + windowBytes) / pageBytes)
    const memory = createWebMemory(pages)
    this.#calls = loadWasm('kernels', memory) as Exports
    this.#memory = memory
    this.bytes = Buffer.from(memory.buffer)
    this.#windowAt = this.bytes.length - windowBytes
    this.#window = this.bytes.subarray(this.#windowAt)
  }

  /** Memory and scratch room for whoever looks at bytes that lie here. */
  get inspectorRoom(): InspectorRoom {
    return { memory: this.#memory, scratchAt, scratchBytes: inspectorScratchBytes }
  }

  /** Sets the polynomial that `findCut` works with. */
  usePolynomial(polynomial: bigint): void {
    this.#polynomial = polynomial
  }

  // Not before the first cut: what is stored in blocks alone does without.
  #makeTables(polynomial: bigint): void {
    this.#polynomial = undefined
    const { reduce, remove } = removalTables(polynomial)
    for (let i = 0; i < 256; i++) {
      this.bytes.writeBigUInt64LE(BigInt.asUintN(64, reduce[i] ?? 0n), 8192 + i * 8)
      this.bytes.writeBigUInt64LE(remove[i] ?? 0n, 10_240 + i * 8)
    }
    this.#writePlanes(reduce, halvesAt)
    this.#writePlanes(remove, halvesAt + 2 * halfBytes)
  }

  /** A table by half bytes, first the lower ones: for each of its digests' seven bytes, 16 entries of one byte. */
  #writePlanes(table: readonly bigint[], at: number): void {
    for (let half = 0; half < 16; half++) {
      for (const [i, byte] of [half, half << 4].entries()) {
        // What stands above the degree drops out without a table; what is below, three bits to the left.
        const digest = BigInt.asUintN(polynomialDegree, table[byte] ?? 0n) << 3n
        for (let plane = 0; plane < 7; plane++) {
          const value = Number((digest >> BigInt(8 * plane)) & 0xffn)
          this.bytes[at + i * halfBytes + plane * 16 + half] = value
        }
      }
    }
  }

  /**
   * The first position in `[at, end]` of `bytes` where the fingerprint of the 64 bytes before it has zeros
   * under `mask`, which is below 2^21; 0 when there is none.
   */
  findCut(at: number, end: number, mask: number): number {
    if (this.#polynomial !== undefined) this.#makeTables(this.#polynomial)
    return this.#calls.findCut(at, end, mask)
  }

  /** Poly1305 of `message` under a 32-byte one-time key. The answer is a view that the next call overwrites. */
  tag(key: Uint8Array, message: Uint8Array): Buffer {
    this.bytes.set(key, keyAt)
    this.#calls.tagBegin(keyAt)
    let at = 0
    while (message.length - at > windowBytes) {
      copyBytes(this.#window, message.subarray(at, at + windowBytes))
      this.#calls.tagUpdate(this.#windowAt, windowBytes)
      at += windowBytes
    }
    const rest = message.length - at
    const whole = rest & ~15
    copyBytes(this.#window, message.subarray(at))
    this.#calls.tagUpdate(this.#windowAt, whole)
    this.#calls.tagEnd(this.#windowAt + whole, rest - whole, keyAt, tagAt)
    return this.bytes.subarray(tagAt, tagAt + 16)
  }
}
