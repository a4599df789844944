import type { InspectorRoom } from '#base/blocks'
import { assert } from '#base/faults'
import { createWebMemory, loadWasm } from '#base/wasm'

type Exports = {
  checkPages(at: number, count: number, block: number, out: number): number
  makeTables(tables: number): void
  crc32c(at: number, size: number, before: number, tables: number, room: number): number
}

const tableBytes = 16 * 1024
const roomBytes = 14 * 1024
/** Pages of which the answers have room in the scratch memory. */
export const pagesMax = 2048

/** CRC-32C and page checksums of bytes that lie in a WebAssembly memory. Of one thread. */
export class PageSums {
  readonly #calls: Exports
  readonly #tables: number
  readonly #room: number
  readonly #answers: Buffer
  readonly bytes: Buffer

  constructor({ memory, scratchAt, scratchBytes }: InspectorRoom) {
    assert(scratchBytes >= tableBytes + roomBytes + pagesMax, 'the scratch memory is enough')
    this.#calls = loadWasm('pages', memory) as Exports
    this.bytes = Buffer.from(memory.buffer)
    this.#tables = scratchAt
    this.#room = scratchAt + tableBytes
    this.#answers = this.bytes.subarray(this.#room + roomBytes, scratchAt + scratchBytes)
    this.#calls.makeTables(scratchAt)
  }

  /** The sum over all bytes so far; `before` is that of those before, 0 at the beginning. */
  crc32c(at: number, sizeBytes: number, before = 0): number {
    return this.#calls.crc32c(at, sizeBytes, before, this.#tables, this.#room) >>> 0
  }

  /** Indexes of the pages that bear a wrong checksum; the first is block `block` of its relation. Some bytes behind are read too. */
  wrongPages(at: number, count: number, block: number): number[] {
    assert(count <= pagesMax, 'the answers have room')
    const out = this.#answers.byteOffset
    if (this.#calls.checkPages(at, count, block, out) === 0) return []
    return Array.from(this.#answers.subarray(0, count).entries()).flatMap(([index, wrong]) =>
      wrong === 0 ? [] : [index],
    )
  }
}

const windowBytes = 64 * 1024

/** CRC-32C of bytes from anywhere. */
export class Crc32c {
  readonly #sums: PageSums

  constructor() {
    const memory = createWebMemory(2)
    const room = { memory, scratchAt: windowBytes, scratchBytes: windowBytes }
    this.#sums = new PageSums(room)
  }

  /** The sum over all bytes so far; `before` is that of those before, 0 at the beginning. */
  extend(before: number, bytes: Uint8Array): number {
    let sum = before
    for (let at = 0; at < bytes.length; at += windowBytes) {
      const part = bytes.subarray(at, at + windowBytes)
      this.#sums.bytes.set(part)
      sum = this.#sums.crc32c(0, part.length, sum)
    }
    return sum
  }
}

/** As the manifest writes it: the bytes of the number as they lie in memory. */
export function formatCrc32c(sum: number): string {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(sum)
  return bytes.toString('hex')
}

/** What so many bytes of zeroes behind it make of a sum, as a matrix over its bits. */
const zeroBytes = new Map<number, Uint32Array>()

/** The sum of two runs of bytes one behind the other, given the sum of each and the length of the second. */
export function joinCrc32c(first: number, second: number, secondBytes: number): number {
  let sum = first
  for (let left = secondBytes, size = 1; left > 0; left = Math.floor(left / 2), size *= 2) {
    if (left % 2 === 1) sum = apply(zeroMatrix(size), sum)
  }
  return (sum ^ second) >>> 0
}

// Of lengths that are powers of two only: at most 53 of them.
function zeroMatrix(sizeBytes: number): Uint32Array {
  const known = zeroBytes.get(sizeBytes)
  if (known) return known
  const half = sizeBytes === 1 ? oneBitTimes(4) : zeroMatrix(sizeBytes / 2)
  const made = half.map((column) => apply(half, column))
  zeroBytes.set(sizeBytes, made)
  return made
}

function oneBitTimes(bits: number): Uint32Array {
  const one = Uint32Array.from({ length: 32 }, (_, bit) =>
    bit === 0 ? 0x82f63b78 : 2 ** (bit - 1),
  )
  let matrix = one
  for (let done = 1; done < bits; done *= 2) {
    const half = matrix
    matrix = half.map((column) => apply(half, column))
  }
  return matrix
}

function apply(matrix: Uint32Array, vector: number): number {
  let sum = 0
  for (let bit = 0, left = vector; left !== 0; bit += 1, left >>>= 1) {
    if (left & 1) sum ^= matrix[bit] ?? 0
  }
  return sum >>> 0
}
