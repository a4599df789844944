import { createCipheriv, createDecipheriv, randomFillSync, timingSafeEqual } from 'node:crypto'
import { Fault } from '#base/faults'
import { Kernels } from './kernels.ts'

/** The keys under which everything in a repository lies, and of the same shape those from a password. */
export type EnvelopeKeys = {
  /** AES-256. */
  readonly encrypt: Uint8Array
  /** AES-128 of the Poly1305-AES authenticator, and its multiplier. */
  readonly macK: Uint8Array
  readonly macR: Uint8Array
}

const ivBytes = 16
const tagBytes = 16
export const envelopeOverheadBytes = ivBytes + tagBytes

/**
 * The envelope around everything stored: `IV, AES-256-CTR(plain), Poly1305-AES of the ciphertext`.
 * Poly1305-AES (D. J. Bernstein, 2005): the one-time key is r and AES-128 of the IV under k.
 * Not shared between threads.
 */
export class EnvelopeCipher {
  readonly #keys: EnvelopeKeys
  readonly #kernels: Kernels
  readonly #mac
  readonly #oneTimeKey = Buffer.alloc(32)

  constructor(keys: EnvelopeKeys, kernels = new Kernels()) {
    this.#keys = keys
    this.#kernels = kernels
    // ECB of single blocks keeps no state from one to the next, so one object serves all.
    this.#mac = createCipheriv('aes-128-ecb', keys.macK, null).setAutoPadding(false)
    this.#oneTimeKey.set(keys.macR)
  }

  #tag(iv: Uint8Array, ciphertext: Uint8Array): Buffer {
    this.#oneTimeKey.set(this.#mac.update(iv), 16)
    return this.#kernels.tag(this.#oneTimeKey, ciphertext)
  }

  /** Writes the envelope of `plain` into `target` from `at` on, and returns its length. */
  sealInto(target: Buffer, at: number, plain: Uint8Array): number {
    const iv = target.subarray(at, at + ivBytes)
    do randomFillSync(iv)
    while (iv.every((byte) => byte === 0))
    const ciphertext = createCipheriv('aes-256-ctr', this.#keys.encrypt, iv).update(plain)
    target.set(ciphertext, at + ivBytes)
    target.set(this.#tag(iv, ciphertext), at + ivBytes + ciphertext.length)
    return envelopeOverheadBytes + ciphertext.length
  }

  seal(plain: Uint8Array): Buffer {
    const envelope = Buffer.allocUnsafe(plain.length + envelopeOverheadBytes)
    this.sealInto(envelope, 0, plain)
    return envelope
  }

  /** The plain bytes, or undefined when the envelope was not made under these keys or was changed. */
  tryOpen(envelope: Buffer): Buffer | undefined {
    if (envelope.length < envelopeOverheadBytes) return undefined
    const iv = envelope.subarray(0, ivBytes)
    const ciphertext = envelope.subarray(ivBytes, envelope.length - tagBytes)
    const tag = envelope.subarray(envelope.length - tagBytes)
    if (!timingSafeEqual(this.#tag(iv, ciphertext), tag)) return undefined
    if (iv.every((byte) => byte === 0)) return undefined
    return createDecipheriv('aes-256-ctr', this.#keys.encrypt, iv).update(ciphertext)
  }

  /** Like `tryOpen`, but throws `corrupt`, naming `what`. */
  open(envelope: Buffer, what: string): Buffer {
    const plain = this.tryOpen(envelope)
    if (!plain) throw new Fault('corrupt', `open ${what}: its authenticator does not match`)
    return plain
  }
}
