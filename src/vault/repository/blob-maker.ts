import { sha256 } from './blob-id.ts'
import { Chunker, chunkerBytes } from './chunker.ts'
import type { CompressionMode } from './compression.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'
import { BlobTable, idWords, type SharedTable } from './index/blob-table.ts'
import { Kernels, kernelDataAt } from './kernels.ts'
import { Packer, type OpenPack } from './packer.ts'
import type { BlobType } from './repository.ts'

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
export class BlobMaker {
  readonly chunkers: readonly Chunker[]
  readonly cipher: EnvelopeCipher
  readonly #table: BlobTable
  readonly #saver: number
  readonly #packers: Readonly<Record<BlobType, Packer>>
  /** What was new so far. */
  readonly added = { dataBlobs: 0, treeBlobs: 0, plainBytes: 0n, storedBytes: 0n }

  constructor(setup: MakerSetup, onFull: (pack: OpenPack) => void) {
    const kernels = new Kernels(setup.chunkers * chunkerBytes)
    kernels.usePolynomial(BigInt(`0x${setup.polynomial}`))
    const places = Array.from({ length: setup.chunkers }, (_, i) => kernelDataAt + i * chunkerBytes)
    this.chunkers = places.map((place) => new Chunker(kernels, place))
    this.cipher = new EnvelopeCipher(setup.keys, kernels)
    this.#table = new BlobTable({ shared: setup.table })
    this.#saver = setup.saver
    const { cipher } = this
    this.#packers = {
      data: new Packer({ cipher, type: 'data', mode: setup.mode, onFull }),
      tree: new Packer({ cipher, type: 'tree', mode: setup.mode, onFull }),
    }
  }

  /** Makes sure that the blob is, or will be, stored; returns its id. `again` stores it in any case. */
  take(type: BlobType, plain: Uint8Array, again = false): Buffer {
    const id = sha256(plain)
    if (!this.#table.claim(idWords(id), type === 'tree', this.#saver) && !again) return id
    const length = this.#packers[type].add(id, plain)
    this.added[type === 'tree' ? 'treeBlobs' : 'dataBlobs']++
    this.added.plainBytes += BigInt(plain.length)
    this.added.storedBytes += BigInt(length)
    return id
  }

  takeOpen(type: BlobType): OpenPack[] {
    return this.#packers[type].takeOpen()
  }
}
