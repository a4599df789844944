import { randomInt } from 'node:crypto'
import { Writer } from '#base/bytes'
import { Fault } from '#base/faults'
import { envelopeOverheadBytes, type EnvelopeCipher } from './crypto.ts'
import { chunkBytesMax, packBlobsTarget, packBytesTarget } from './limits.ts'
import { copyBytes } from './native-calls.ts'
import { decodePack, headerEntryBytes, packTrailerBytes, writeHeaderEntry } from './pack.ts'
import type { BlobType, PackedBlob } from './repository.ts'
import { Scratch } from './scratch.ts'
import type { Zstd } from './zstd.ts'

/** A pack that is ready to be stored. */
export type FinishedPack = {
  readonly id: string
  readonly bytes: Buffer
  readonly blobs: readonly PackedBlob[]
}

/** All of a shared memory. */
export type PackMemory = Buffer<SharedArrayBuffer>

/** A pack that still grows: envelopes in `bytes` up to `size`, and the plain header that lists them. */
export type OpenPack = {
  readonly type: BlobType
  bytes: PackMemory
  size: number
  readonly header: Writer
}

/**
 * Open packs at a time, of which each blob takes one at random. With a single one the order and the lengths of
 * a file's chunks could be read off the store, and with them the chunker's secret polynomial be guessed
 * (eprint 2025/532).
 */
const openPacksMax = 2

/** The header of a pack that holds as many blobs as it should. */
const headerBytesTarget = packBlobsTarget * headerEntryBytes(1)

/** Room of an open pack: it is closed once it is over the target, with one more chunk in it at most. */
export const packRoomBytes = packBytesTarget + chunkBytesMax + 256 * 1024

export function createOpenPack(type: BlobType, bytes: PackMemory): OpenPack {
  return { type, bytes, size: 0, header: new Writer(1024) }
}

/** What sealing takes; of one thread, for one blob at a time. */
export class BlobSealer {
  readonly #cipher: EnvelopeCipher
  readonly #zstd: Zstd
  readonly #packed = new Scratch()
  readonly #opened = new Scratch()
  readonly #unpacked = new Scratch()

  constructor(cipher: EnvelopeCipher, zstd: Zstd) {
    this.#cipher = cipher
    this.#zstd = zstd
  }

  /** The zstd frame of `plain`, or `plain` itself when that is no longer; holds until the next call. */
  compress(plain: Uint8Array, level?: number): Uint8Array {
    if (plain.length === 0) return plain
    const packed = this.#packed.room(this.#zstd.bound(plain.length))
    const size = this.#zstd.compress(plain, packed, level)
    return size < plain.length ? packed.subarray(0, size) : plain
  }

  /**
   * Writes the envelope of `payload`, which is `plain` or its frame, behind what the pack holds, and returns its
   * length. It is decoded again and compared: broken memory and broken compressors have cost others their data.
   */
  seal(pack: OpenPack, payload: Uint8Array, plain: Uint8Array): number {
    const length = this.#cipher.sealInto(pack.bytes, pack.size, payload)
    const envelope = pack.bytes.subarray(pack.size, pack.size + length)
    const opened = this.#opened.room(payload.length)
    const size = this.#cipher.openInto(envelope, opened)
    if (size !== payload.length || !this.#isSame(opened, payload, plain)) {
      throw new Fault('corrupt', 'write new blob: it does not decode to what was given', {
        hint: 'The memory or the processor of this machine may be failing.',
      })
    }
    return length
  }

  #isSame(opened: Buffer, payload: Uint8Array, plain: Uint8Array): boolean {
    if (payload === plain) return opened.compare(plain) === 0
    const unpacked = this.#unpacked.room(plain.length)
    const size = this.#zstd.decompress(opened, unpacked)
    return size === plain.length && unpacked.compare(plain) === 0
  }
}

/** Compresses, seals and gathers blobs of one type into packs. Of one thread. */
export class Packer {
  readonly #sealer: BlobSealer
  readonly #type: BlobType
  readonly #isCompressing: boolean
  readonly #onFull: (pack: OpenPack) => void
  readonly #takeRoom: () => PackMemory
  readonly #open: (OpenPack | undefined)[] = []

  constructor(options: {
    readonly sealer: BlobSealer
    readonly type: BlobType
    readonly isCompressing: boolean
    /** Called with each pack that has reached its size. */
    readonly onFull: (pack: OpenPack) => void
    /** Gives the memory for another pack, at least `packRoomBytes`; may wait for one to be stored. */
    readonly takeRoom: () => PackMemory
  }) {
    this.#sealer = options.sealer
    this.#type = options.type
    this.#isCompressing = options.isCompressing
    this.#onFull = options.onFull
    this.#takeRoom = options.takeRoom
  }

  /** Adds a blob; returns what it takes in its pack. `level` is one for this blob alone. */
  add(id: Uint8Array, plain: Uint8Array, level?: number): number {
    const payload = this.#isCompressing ? this.#sealer.compress(plain, level) : plain
    const slot = randomInt(openPacksMax)
    const pack = (this.#open[slot] ??= createOpenPack(this.#type, this.#takeRoom()))
    makeRoom(pack, payload.length + envelopeOverheadBytes)
    const length = this.#sealer.seal(pack, payload, plain)
    const plainLength = payload === plain ? 0 : plain.length
    writeHeaderEntry(pack.header, { type: this.#type, id, length, plainLength })
    pack.size += length
    if (pack.size >= packBytesTarget || pack.header.size >= headerBytesTarget) {
      this.#open[slot] = undefined
      this.#onFull(pack)
    }
    return length
  }

  /** Hands out the packs that have not reached their size. */
  takeOpen(): OpenPack[] {
    return this.#open.splice(0).filter((pack): pack is OpenPack => pack !== undefined)
  }
}

function makeRoom(pack: OpenPack, size: number): void {
  if (pack.size + size <= pack.bytes.length) return
  // Only for trees larger than any chunk.
  const larger = Buffer.from(new SharedArrayBuffer(pack.size + size + 256 * 1024))
  copyBytes(larger, pack.bytes.subarray(0, pack.size))
  pack.bytes = larger
}

/** Joins packs that stayed small, as long as what comes out is no larger than a pack should be. */
export function mergeSmall(packs: readonly OpenPack[]): OpenPack[] {
  const merged: OpenPack[] = []
  for (const pack of packs.toSorted((a, b) => b.size - a.size)) {
    const host = merged.find(
      (other) =>
        other.size + pack.size <= packBytesTarget &&
        other.header.size + pack.header.size <= headerBytesTarget,
    )
    if (!host) {
      merged.push(pack)
      continue
    }
    makeRoom(host, pack.size)
    copyBytes(host.bytes.subarray(host.size), pack.bytes.subarray(0, pack.size))
    host.size += pack.size
    host.header.bytes(pack.header.done())
  }
  return merged
}

/** Appends the header; returns the whole pack, a view of its memory. */
export function closePack(cipher: EnvelopeCipher, pack: OpenPack): Buffer {
  const header = pack.header.done()
  makeRoom(pack, header.length + envelopeOverheadBytes + packTrailerBytes)
  const length = cipher.sealInto(pack.bytes, pack.size, header)
  const size = pack.size + length + packTrailerBytes
  pack.bytes.writeUInt32LE(length, size - packTrailerBytes)
  return pack.bytes.subarray(0, size)
}

/** Reads the header of a closed pack again, which must list what was put in, before the pack is stored. */
export function checkPack(cipher: EnvelopeCipher, bytes: Buffer, id: string): FinishedPack {
  return { id, bytes, blobs: decodePack(cipher, bytes, 'new pack') }
}
