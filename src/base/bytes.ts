import { Fault } from './faults.ts'

/** Reads values off one buffer, never past its end: a short or absurd length is a `protocol` Fault. */
export class Reader {
  readonly #bytes: Buffer
  readonly #what: string
  #pos: number

  /** `what` names the thing that is read, for error messages. */
  constructor(bytes: Uint8Array, what: string, pos = 0) {
    this.#bytes = Buffer.isBuffer(bytes)
      ? bytes
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#what = what
    this.#pos = pos
  }

  get pos(): number {
    return this.#pos
  }

  get left(): number {
    return this.#bytes.length - this.#pos
  }

  #take(size: number): number {
    if (size < 0 || size > this.left) {
      throw new Fault('protocol', `read ${this.#what}: ${size} bytes wanted, ${this.left} left`)
    }
    const at = this.#pos
    this.#pos += size
    return at
  }

  skip(size: number): void {
    this.#take(size)
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1))
  }
  u16le(): number {
    return this.#bytes.readUInt16LE(this.#take(2))
  }
  u16be(): number {
    return this.#bytes.readUInt16BE(this.#take(2))
  }
  i16be(): number {
    return this.#bytes.readInt16BE(this.#take(2))
  }
  u24le(): number {
    return this.#bytes.readUIntLE(this.#take(3), 3)
  }
  u32le(): number {
    return this.#bytes.readUInt32LE(this.#take(4))
  }
  u32be(): number {
    return this.#bytes.readUInt32BE(this.#take(4))
  }
  i32be(): number {
    return this.#bytes.readInt32BE(this.#take(4))
  }
  u48le(): number {
    return this.#bytes.readUIntLE(this.#take(6), 6)
  }
  u64le(): bigint {
    return this.#bytes.readBigUInt64LE(this.#take(8))
  }
  u64be(): bigint {
    return this.#bytes.readBigUInt64BE(this.#take(8))
  }
  i64be(): bigint {
    return this.#bytes.readBigInt64BE(this.#take(8))
  }

  /** A view of the next `size` bytes; copy it if it must outlive the buffer. */
  view(size: number): Buffer {
    const at = this.#take(size)
    return this.#bytes.subarray(at, at + size)
  }

  /** A view of all that is left. */
  rest(): Buffer {
    return this.view(this.left)
  }

  text(size: number): string {
    return this.view(size).toString('utf8')
  }

  /** Text up to a zero byte, which is consumed. */
  cstring(): string {
    const end = this.#bytes.indexOf(0, this.#pos)
    if (end < 0) throw new Fault('protocol', `read ${this.#what}: a string has no end`)
    const text = this.text(end - this.#pos)
    this.skip(1)
    return text
  }
}

/** Writes values into one growing buffer. */
export class Writer {
  #bytes: Buffer
  #pos = 0

  constructor(sizeGuess = 256) {
    this.#bytes = Buffer.allocUnsafe(sizeGuess)
  }

  get size(): number {
    return this.#pos
  }

  #room(size: number): number {
    if (this.#pos + size > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#pos + size))
      this.#bytes.copy(grown, 0, 0, this.#pos)
      this.#bytes = grown
    }
    const at = this.#pos
    this.#pos += size
    return at
  }

  u8(value: number): this {
    const at = this.#room(1)
    this.#bytes.writeUInt8(value, at)
    return this
  }
  u16le(value: number): this {
    const at = this.#room(2)
    this.#bytes.writeUInt16LE(value, at)
    return this
  }
  u16be(value: number): this {
    const at = this.#room(2)
    this.#bytes.writeUInt16BE(value, at)
    return this
  }
  u32le(value: number): this {
    const at = this.#room(4)
    this.#bytes.writeUInt32LE(value, at)
    return this
  }
  u32be(value: number): this {
    const at = this.#room(4)
    this.#bytes.writeUInt32BE(value, at)
    return this
  }
  u64le(value: bigint): this {
    const at = this.#room(8)
    this.#bytes.writeBigUInt64LE(value, at)
    return this
  }
  u64be(value: bigint): this {
    const at = this.#room(8)
    this.#bytes.writeBigUInt64BE(value, at)
    return this
  }

  bytes(value: Uint8Array): this {
    const at = this.#room(value.length)
    this.#bytes.set(value, at)
    return this
  }

  text(value: string): this {
    return this.bytes(Buffer.from(value, 'utf8'))
  }

  cstring(value: string): this {
    return this.text(value).u8(0)
  }

  /** What was written: a view that the next write may move away from. */
  done(): Buffer {
    return this.#bytes.subarray(0, this.#pos)
  }
}

const units: Readonly<Record<string, number>> = { '': 0, k: 1, m: 2, g: 3, t: 4 }

/** Reads `64`, `64KiB`, `50MB`, `2g`: powers of 1024 for `KiB` and a bare letter, of 1000 for `KB`. */
export function parseSizeBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([kmgt]?)(i?b)?$/i.exec(text.trim())
  if (!match) return undefined
  const [, digits = '', unit = '', suffix = ''] = match
  const base = suffix.toLowerCase() === 'b' && unit !== '' ? 1000 : 1024
  const size = Math.round(Number(digits) * base ** (units[unit.toLowerCase()] ?? 0))
  return Number.isSafeInteger(size) ? size : undefined
}

/** Writes a size for people: `512 B`, `1.5 MiB`. */
export function formatSizeBytes(size: number | bigint): string {
  let value = Number(size)
  let unit = 0
  while (value >= 1024 && unit < 5) {
    value /= 1024
    unit += 1
  }
  const name = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]
  return unit === 0 ? `${value} B` : `${value.toFixed(value < 10 ? 2 : 1)} ${name}`
}

/** Smaller buffers are shared with others, or not worth it. */
const releaseBytesMin = 64 * 1024

/**
 * Gives the memory of a large buffer back at once; whoever looks at it again finds it empty. For the last owner of a
 * buffer of its own, and only where much passes: such memory is counted outside the heap, so that a stream of dead
 * buffers makes the collector mark the whole heap several times a second.
 */
export function release(bytes: Buffer): void {
  const { buffer } = bytes
  if (bytes.length >= releaseBytesMin && buffer instanceof ArrayBuffer) buffer.transfer(0)
}
