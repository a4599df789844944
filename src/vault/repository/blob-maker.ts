import { sha256 } from './blob-id.ts'
import { Chunker, chunkerBytes } from './chunker.ts'
import type { InspectorRoom } from '#base/blocks'
import { blockLevel, compressionLevels, type CompressionMode } from './compression.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'
import { BlobTable, idWords, type SharedTable } from './index/blob-table.ts'
import { Kernels, kernelDataAt } from './kernels.ts'
import { blockBytes, chunkBytesMin } from './limits.ts'
import { copyBytes } from './native-calls.ts'
import { BlobSealer, Packer, type OpenPack, type PackMemory } from './packer.ts'
import type { BlobType } from './repository.ts'
import { createZstd, type Zstd } from './zstd.ts'

// A long hole in a file becomes chunks of zeros, all of the least size: comparing is cheaper than hashing.
const zeros = Buffer.alloc(chunkBytesMin)
const zerosId = sha256(zeros)

/** All that a thread needs to make blobs: passes between threads as it is. */
export type MakerSetup = {
  readonly keys: EnvelopeKeys
  /** In hexadecimal. */
  readonly polynomial: string
  readonly mode: CompressionMode
  readonly table: SharedTable
  /** Tells the claims of this saver from those of others. */
  readonly saver: number
  /** Streams that are cut at the same time. */
  readonly chunkers: number
}

/** One thread's part of a saver: cuts, hashes, deduplicates, and gathers new blobs into packs. */
export class BlobMaker implements Disposable {
  readonly chunkers: readonly Chunker[]
  /** Where a block lies while it is made into a blob, and what inspectors need to look at it. */
  readonly inspectorRoom: InspectorRoom
  readonly blockAt: number
  readonly #block: Buffer
  readonly #blockLevel: number
  readonly cipher: EnvelopeCipher
  readonly #table: BlobTable
  readonly #zstd: Zstd
  readonly #saver: number
  readonly #packers: Readonly<Record<BlobType, Packer>>
  /** What was new so far. */
  readonly added = { dataBlobs: 0, treeBlobs: 0, plainBytes: 0n, storedBytes: 0n }

  constructor(
    setup: MakerSetup,
    onFull: (pack: OpenPack) => void,
    takeRoom: (type: BlobType) => PackMemory,
  ) {
    const kernels = new Kernels(setup.chunkers * chunkerBytes + blockBytes)
    kernels.usePolynomial(BigInt(`0x${setup.polynomial}`))
    const places = Array.from({ length: setup.chunkers }, (_, i) => kernelDataAt + i * chunkerBytes)
    this.chunkers = places.map((place) => new Chunker(kernels, place))
    this.inspectorRoom = kernels.inspectorRoom
    this.blockAt = kernelDataAt + setup.chunkers * chunkerBytes
    this.#block = kernels.bytes.subarray(this.blockAt, this.blockAt + blockBytes)
    this.#blockLevel = blockLevel(setup.mode)
    this.cipher = new EnvelopeCipher(setup.keys, kernels)
    this.#table = new BlobTable({ shared: setup.table })
    this.#saver = setup.saver
    this.#zstd = createZstd(compressionLevels[setup.mode])
    const sealer = new BlobSealer(this.cipher, this.#zstd)
    const createPacker = (type: BlobType) =>
      new Packer({
        sealer,
        type,
        isCompressing: type === 'tree' || setup.mode !== 'off',
        onFull,
        takeRoom: () => takeRoom(type),
      })
    this.#packers = { data: createPacker('data'), tree: createPacker('tree') }
  }

  /** Takes a copy of the block to `blockAt`; `take` then makes a blob of it. */
  hold(block: Buffer): Buffer {
    const held = this.#block.subarray(0, block.length)
    copyBytes(held, block)
    return held
  }

  /** As `take`, for what `hold` returned. */
  takeHeld(block: Buffer): Buffer {
    return this.take(block, this.#blockLevel)
  }

  /** Makes sure that the chunk is, or will be, stored; returns its id. */
  take(chunk: Buffer, level?: number): Buffer {
    const id = chunk.length === zeros.length && chunk.equals(zeros) ? zerosId : sha256(chunk)
    if (this.#table.claim(idWords(id), false, this.#saver)) this.store('data', id, chunk, level)
    return id
  }

  /** Stores a blob that the caller has claimed. */
  store(type: BlobType, id: Uint8Array, plain: Uint8Array, level?: number): void {
    const length = this.#packers[type].add(id, plain, level)
    this.added[type === 'tree' ? 'treeBlobs' : 'dataBlobs']++
    this.added.plainBytes += BigInt(plain.length)
    this.added.storedBytes += BigInt(length)
  }

  takeOpen(type: BlobType): OpenPack[] {
    return this.#packers[type].takeOpen()
  }

  [Symbol.dispose](): void {
    this.cipher[Symbol.dispose]()
    this.#zstd[Symbol.dispose]()
  }
}
