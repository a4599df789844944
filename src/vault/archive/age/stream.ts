import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto'
import { assert, Fault } from '#base/faults'

/** Plain bytes of a chunk of the payload: all are full but the last. */
export const chunkSize = 64 * 1024
export const tagSize = 16
export const nonceSize = 16
const sealedSize = chunkSize + tagSize
const algorithm = 'chacha20-poly1305'

/** The key of the payload: https://age-encryption.org/v1, "Payload". */
export function payloadKey(fileKey: Buffer, nonce: Buffer): Buffer {
  return Buffer.from(hkdfSync('sha256', fileKey, nonce, 'payload', 32))
}

/** Seals chunk after chunk with a counter and a mark on the last: the STREAM construction of age. */
export class Sealer {
  readonly #key: Buffer
  readonly #nonce = new ChunkNonce()

  constructor(key: Buffer) {
    this.#key = key
  }

  /** `plain` is a full chunk, unless it is the last. Returns the sealed bytes and the tag. */
  seal(plain: Uint8Array, last: boolean): [Buffer, Buffer] {
    assert(last ? plain.length <= chunkSize : plain.length === chunkSize, 'a chunk is full')
    const nonce = this.#nonce.take(last)
    const cipher = createCipheriv(algorithm, this.#key, nonce, { authTagLength: tagSize })
    const sealed = cipher.update(plain)
    cipher.final()
    return [sealed, cipher.getAuthTag()]
  }
}

/** Opens what a Sealer sealed; a chunk that is not next in order, or not what was written, is `corrupt`. */
export class Opener {
  readonly #key: Buffer
  readonly #nonce = new ChunkNonce()
  #count = 0

  constructor(key: Buffer) {
    this.#key = key
  }

  /** `sealed` holds the tag at its end. */
  open(sealed: Buffer, last: boolean): Buffer {
    const plainSize = sealed.length - tagSize
    if (plainSize < 0 || (plainSize === 0 && this.#count > 0)) {
      throw new Fault('corrupt', `decrypt chunk ${this.#count}: the file is cut short`)
    }
    const nonce = this.#nonce.take(last)
    const decipher = createDecipheriv(algorithm, this.#key, nonce, { authTagLength: tagSize })
    decipher.setAuthTag(sealed.subarray(plainSize))
    const plain = decipher.update(sealed.subarray(0, plainSize))
    try {
      decipher.final()
    } catch (error) {
      throw new Fault('corrupt', `decrypt chunk ${this.#count}: its tag does not match`, {
        cause: error,
      })
    }
    this.#count += 1
    return plain
  }
}

/** Cuts a stream of any pieces into the chunks of a payload: `emit` gets full ones, and exactly one that is the last. */
export class Chunker {
  readonly #size: number
  #held: Buffer[] = []
  #heldSize = 0

  constructor(kind: 'plain' | 'sealed') {
    this.#size = kind === 'plain' ? chunkSize : sealedSize
  }

  /** The chunks that are complete with `piece`: a full one is held back until more is known to follow. */
  *push(piece: Buffer): Generator<Buffer> {
    let rest = piece
    while (this.#heldSize + rest.length > this.#size) {
      const want = this.#size - this.#heldSize
      yield this.#join(rest.subarray(0, want))
      rest = rest.subarray(want)
    }
    if (rest.length > 0) this.#held.push(rest)
    this.#heldSize += rest.length
  }

  /** The last chunk; empty when nothing was pushed. */
  end(): Buffer {
    return this.#join(Buffer.alloc(0))
  }

  #join(more: Buffer): Buffer {
    const held = this.#held
    this.#held = []
    this.#heldSize = 0
    return held.length === 0 ? more : Buffer.concat([...held, more])
  }
}

/** 11 bytes of a big-endian counter, then 1 for the last chunk and 0 before. */
class ChunkNonce {
  readonly #bytes = Buffer.alloc(12)
  #count = 0
  #ended = false

  take(last: boolean): Buffer {
    assert(!this.#ended, 'nothing follows the last chunk')
    this.#ended = last
    this.#bytes.writeUIntBE(this.#count, 5, 6)
    this.#bytes[11] = last ? 1 : 0
    this.#count += 1
    return this.#bytes
  }
}
