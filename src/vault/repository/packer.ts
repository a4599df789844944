import { randomInt } from 'node:crypto'
import { Writer } from '#base/bytes'
import { Fault } from '#base/faults'
import { compress, decompress, type CompressionMode } from './compression.ts'
import { envelopeOverheadBytes, type EnvelopeCipher } from './crypto.ts'
import { chunkBytesMax, packBytesTarget } from './limits.ts'
import { decodePack, packTrailerBytes, writeHeaderEntry } from './pack.ts'
import type { BlobType, PackedBlob } from './repository.ts'

/** A pack that is ready to be stored. */
export type FinishedPack = {
  readonly id: string
  readonly bytes: Buffer
  readonly blobs: readonly PackedBlob[]
}

/** A pack that still grows: envelopes in `bytes` up to `size`, and the plain header that lists them. */
export type OpenPack = {
  readonly type: BlobType
  bytes: Buffer
  size: number
  readonly header: Writer
}

/**
 * Open packs at a time, of which each blob takes one at random. With a single one the order and the lengths of
 * a file's chunks could be read off the store, and with them the chunker's secret polynomial be guessed
 * (eprint 2025/532).
 */
const openPacksMax = 2

/** Room of an open pack: it is closed once it is over the target, with one more chunk in it at most. */
export const packRoomBytes = packBytesTarget + chunkBytesMax + 256 * 1024

export function createOpenPack(type: BlobType, bytes: Buffer): OpenPack {
  return { type, bytes, size: 0, header: new Writer(1024) }
}

/** Compresses, seals and gathers blobs of one type into packs. Not shared between threads. */
export class Packer {
  readonly #cipher: EnvelopeCipher
  readonly #type: BlobType
  readonly #mode: CompressionMode
  readonly #onFull: (pack: OpenPack) => void
  readonly #takeRoom: () => Buffer
  readonly #open: (OpenPack | undefined)[] = []

  constructor(options: {
    readonly cipher: EnvelopeCipher
    readonly type: BlobType
    readonly mode: CompressionMode
    /** Called with each pack that has reached its size. */
    readonly onFull: (pack: OpenPack) => void
    /** Gives the memory for another pack, at least `packRoomBytes`; may wait for one to be stored. */
    readonly takeRoom: () => Buffer
  }) {
    this.#cipher = options.cipher
    this.#type = options.type
    this.#mode = options.mode
    this.#onFull = options.onFull
    this.#takeRoom = options.takeRoom
  }

  /** Adds a blob; returns what it takes in its pack. */
  add(id: Uint8Array, plain: Uint8Array): number {
    const packed = this.#compress(plain)
    const payload = packed ?? plain
    const slot = randomInt(openPacksMax)
    const pack = (this.#open[slot] ??= createOpenPack(this.#type, this.#takeRoom()))
    makeRoom(pack, payload.length + envelopeOverheadBytes)
    const length = this.#cipher.sealInto(pack.bytes, pack.size, payload)
    const envelope = pack.bytes.subarray(pack.size, pack.size + length)
    this.#verify(envelope, plain, packed !== undefined)
    const plainLength = packed ? plain.length : 0
    writeHeaderEntry(pack.header, { type: this.#type, id, length, plainLength })
    pack.size += length
    if (pack.size >= packBytesTarget) {
      this.#open[slot] = undefined
      this.#onFull(pack)
    }
    return length
  }

  #compress(plain: Uint8Array): Buffer | undefined {
    if (plain.length === 0 || (this.#mode === 'off' && this.#type === 'data')) return undefined
    const packed = compress(plain, this.#mode)
    return packed.length < plain.length ? packed : undefined
  }

  // Broken memory and broken compressors have cost others their data: what does not come back is never stored.
  #verify(envelope: Buffer, plain: Uint8Array, isPacked: boolean): void {
    const what = `new ${this.#type} blob`
    const opened = this.#cipher.open(envelope, what)
    const again = isPacked ? decompress(opened, plain.length, what) : opened
    if (again.compare(plain) !== 0) {
      throw new Fault(
        'corrupt',
        `write ${what}: the encoded blob does not decode to what was given`,
        {
          hint: 'The memory or the processor of this machine may be failing.',
        },
      )
    }
  }

  /** Hands out the packs that have not reached their size. */
  takeOpen(): OpenPack[] {
    return this.#open.splice(0).filter((pack): pack is OpenPack => pack !== undefined)
  }
}

function makeRoom(pack: OpenPack, size: number): void {
  if (pack.size + size <= pack.bytes.length) return
  // Only for trees larger than any chunk.
  const larger = Buffer.allocUnsafeSlow(pack.size + size + 256 * 1024)
  pack.bytes.copy(larger, 0, 0, pack.size)
  pack.bytes = larger
}

/** Joins packs that stayed small, as long as what comes out is no larger than a pack should be. */
export function mergeSmall(packs: readonly OpenPack[]): OpenPack[] {
  const merged: OpenPack[] = []
  for (const pack of packs.toSorted((a, b) => b.size - a.size)) {
    const host = merged.find((other) => other.size + pack.size <= packBytesTarget)
    if (!host) {
      merged.push(pack)
      continue
    }
    makeRoom(host, pack.size)
    pack.bytes.copy(host.bytes, host.size, 0, pack.size)
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
