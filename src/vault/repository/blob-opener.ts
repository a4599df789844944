import { Fault } from '#base/faults'
import { sha256 } from './blob-id.ts'
import { envelopeOverheadBytes, type EnvelopeCipher } from './crypto.ts'
import type { PackedBlob } from './repository.ts'
import { Scratch } from './scratch.ts'
import { createZstd, type Zstd } from './zstd.ts'

type Wanted = Pick<PackedBlob, 'id' | 'type' | 'plainLength'>

/** Opens the envelopes of blobs, unpacks them, and compares them with their ids. Of one thread; to be disposed of. */
export class BlobOpener implements Disposable {
  readonly #cipher: EnvelopeCipher
  readonly #zstd: Zstd = createZstd(0)
  readonly #opened = new Scratch()
  readonly #unpacked = new Scratch()

  /** The cipher stays the caller's. */
  constructor(cipher: EnvelopeCipher) {
    this.#cipher = cipher
  }

  /** The plain bytes, in memory of their own; throws `corrupt`. */
  open(blob: Wanted, envelope: Buffer): Buffer {
    return this.#open(blob, envelope, (size) => Buffer.allocUnsafe(size))
  }

  /** The plain bytes, at the beginning of `to`; throws `corrupt`. */
  openInto(blob: Wanted, envelope: Buffer, to: Buffer): Buffer {
    return this.#open(blob, envelope, (size) => to.subarray(0, size))
  }

  /** The plain bytes, in memory that the next call uses again; throws `corrupt`. */
  view(blob: Wanted, envelope: Buffer): Buffer {
    return this.#open(blob, envelope, (size) => this.#unpacked.room(size))
  }

  #open(blob: Wanted, envelope: Buffer, room: (size: number) => Buffer): Buffer {
    const { id, plainLength } = blob
    const isPacked = plainLength !== 0
    const size = Math.max(0, envelope.length - envelopeOverheadBytes)
    const opened = isPacked ? this.#opened.room(size) : room(size)
    if (this.#cipher.openInto(envelope, opened) === undefined) {
      throw damaged(blob, 'its authenticator does not match')
    }
    const plain = isPacked ? room(plainLength) : opened
    if (isPacked && this.#zstd.decompress(opened, plain) !== plainLength) {
      throw damaged(blob, `it is no zstd frame of ${plainLength} bytes`)
    }
    if (!sha256(plain).equals(Buffer.from(id, 'hex'))) {
      throw damaged(blob, 'the bytes do not match the id')
    }
    return plain
  }

  [Symbol.dispose](): void {
    this.#zstd[Symbol.dispose]()
  }
}

function damaged({ id, type }: Wanted, why: string): Fault {
  return new Fault('corrupt', `open ${type} blob ${id}: ${why}`)
}
