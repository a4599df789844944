import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { assert } from '#base/faults'
import { nativeCalls, type Address, type NativeCalls } from './native-calls.ts'

/** zstd from memory to memory, frame by frame. Of one thread; to be disposed of. */
export interface Zstd extends Disposable {
  /** Room that the frame of so many bytes may need. */
  bound(sizeBytes: number): number
  /** Writes one frame of `plain`, its size in the header and no checksum, into `to`; returns its length. */
  compress(plain: Uint8Array, to: Buffer, level?: number): number
  /** Unpacks into `to`; returns the size, or undefined when the bytes are damaged or unpack to more than fits. */
  decompress(packed: Uint8Array, to: Buffer): number | undefined
}

type Parameter = readonly [parameter: number, value: number]

/**
 * What a level is made of. Level 3 looks for matches in two tables of 768 KiB, which push each other and all else that a
 * thread works with out of the processor's cache; with half of them a chunk takes a fifth less time, and no more
 * than 1 to 3 % more room. Shorter inputs get tables of this size anyway. 0 stands for the level's own size.
 */
function parametersOf(level: number): readonly Parameter[] {
  const isUsual = level === 3
  return [
    [constants.ZSTD_c_compressionLevel, level],
    [constants.ZSTD_c_hashLog, isUsual ? 16 : 0],
    [constants.ZSTD_c_chainLog, isUsual ? 15 : 0],
  ]
}

/** For compressing at a level, and for decompressing. */
export function createZstd(level: number, calls: NativeCalls | null = nativeCalls() ?? null): Zstd {
  return calls ? new NativeZstd(level, calls) : new PortableZstd(level)
}

class NativeZstd implements Zstd {
  readonly #calls: NativeCalls
  readonly #level: number
  #packer: Address | undefined
  #packerLevel: number | undefined
  #unpacker: Address | undefined

  constructor(level: number, calls: NativeCalls) {
    this.#level = level
    this.#calls = calls
  }

  bound(sizeBytes: number): number {
    return this.#calls.ZSTD_compressBound(sizeBytes)
  }

  compress(plain: Uint8Array, to: Buffer, level = this.#level): number {
    assert(to.length >= this.bound(plain.length), 'a frame has room')
    this.#packer ??= this.#createPacker()
    this.#useLevel(this.#packer, level)
    const size = this.#calls.ZSTD_compress2(this.#packer, to, to.length, plain, plain.length)
    assert(size <= to.length, 'zstd compresses whatever fits')
    return Number(size)
  }

  #createPacker(): Address {
    const context = this.#calls.ZSTD_createCCtx()
    assert(context, 'there is memory for a zstd context')
    return context
  }

  #useLevel(context: Address, level: number): void {
    if (level === this.#packerLevel) return
    for (const [parameter, value] of parametersOf(level))
      this.#calls.ZSTD_CCtx_setParameter(context, parameter, value)
    this.#packerLevel = level
  }

  decompress(packed: Uint8Array, to: Buffer): number | undefined {
    this.#unpacker ??= this.#calls.ZSTD_createDCtx() ?? undefined
    assert(this.#unpacker, 'there is memory for a zstd context')
    const { length } = packed
    const size = this.#calls.ZSTD_decompressDCtx(this.#unpacker, to, to.length, packed, length)
    return size <= to.length ? Number(size) : undefined
  }

  [Symbol.dispose](): void {
    if (this.#packer) this.#calls.ZSTD_freeCCtx(this.#packer)
    if (this.#unpacker) this.#calls.ZSTD_freeDCtx(this.#unpacker)
    this.#packer = undefined
    this.#unpacker = undefined
  }
}

class PortableZstd implements Zstd {
  readonly #level: number

  constructor(level: number) {
    this.#level = level
  }

  bound(sizeBytes: number): number {
    return sizeBytes + (sizeBytes >>> 8) + 128
  }

  compress(plain: Uint8Array, to: Buffer, level = this.#level): number {
    const packed = zstdCompressSync(plain, {
      params: Object.fromEntries(parametersOf(level)),
      pledgedSrcSize: plain.length,
      chunkSize: Math.max(1024, this.bound(plain.length)),
    })
    return packed.copy(to)
  }

  decompress(packed: Uint8Array, to: Buffer): number | undefined {
    try {
      const plain = zstdDecompressSync(packed, {
        maxOutputLength: Math.max(1, to.length),
        chunkSize: Math.max(1024, to.length),
      })
      return plain.length > to.length ? undefined : plain.copy(to)
    } catch (error) {
      if (error instanceof Error) return undefined
      throw error
    }
  }

  [Symbol.dispose](): void {
    // Nothing is kept between calls.
  }
}
