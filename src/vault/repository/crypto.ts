import { createCipheriv, randomFillSync, timingSafeEqual } from 'node:crypto'
import { Fault } from '#base/faults'
import { createAesCtr, type AesCtr } from './aes-ctr.ts'
import type { Kernels } from './kernels.ts'
import { nativeCalls } from './native-calls.ts'
import { createPoly1305, tagBytes, type Poly1305 } from './poly1305.ts'

/** The keys under which everything in a repository lies, and of the same shape those from a password. */
export type EnvelopeKeys = {
  /** AES-256. */
  readonly encrypt: Uint8Array
  /** AES-128 of the Poly1305-AES authenticator, and its multiplier. */
  readonly macK: Uint8Array
  readonly macR: Uint8Array
}

const ivBytes = 16
export const envelopeOverheadBytes = ivBytes + tagBytes

/**
 * The envelope around everything stored: `IV, AES-256-CTR(plain), Poly1305-AES of the ciphertext`.
 * Poly1305-AES (D. J. Bernstein, 2005): the one-time key is r and AES-128 of the IV under k.
 * Of one thread; to be disposed of.
 */
export class EnvelopeCipher implements Disposable {
  readonly #aes: AesCtr
  readonly #poly1305: Poly1305
  readonly #mac
  readonly #oneTimeKey = Buffer.alloc(32)
  /** Randomness for many IVs at a time. */
  readonly #random = Buffer.alloc(4096)
  #randomUsed = 4096

  /** The kernels are used where nothing faster is to be had, and made if none are given. */
  constructor(keys: EnvelopeKeys, kernels?: Kernels, calls = nativeCalls() ?? null) {
    this.#aes = createAesCtr(keys.encrypt, calls)
    this.#poly1305 = createPoly1305(calls, kernels)
    // ECB of single blocks keeps no state from one to the next, so one object serves all.
    this.#mac = createCipheriv('aes-128-ecb', keys.macK, null).setAutoPadding(false)
    this.#oneTimeKey.set(keys.macR)
  }

  #tag(iv: Uint8Array, ciphertext: Uint8Array): Buffer {
    this.#oneTimeKey.set(this.#mac.update(iv), 16)
    return this.#poly1305.tag(this.#oneTimeKey, ciphertext)
  }

  /** Sixteen bytes that were never used before, and are not all zero, which readers reject. */
  #freshIv(iv: Buffer): void {
    do {
      if (this.#randomUsed === this.#random.length) {
        randomFillSync(this.#random)
        this.#randomUsed = 0
      }
      this.#random.copy(iv, 0, this.#randomUsed, this.#randomUsed + ivBytes)
      this.#randomUsed += ivBytes
    } while (isZero(iv))
  }

  /** Writes the envelope of `plain` into `target` from `at` on, and returns its length. */
  sealInto(target: Buffer, at: number, plain: Uint8Array): number {
    const iv = target.subarray(at, at + ivBytes)
    this.#freshIv(iv)
    const end = at + ivBytes + plain.length
    const ciphertext = target.subarray(at + ivBytes, end)
    this.#aes.apply(iv, plain, ciphertext)
    target.set(this.#tag(iv, ciphertext), end)
    return envelopeOverheadBytes + plain.length
  }

  seal(plain: Uint8Array): Buffer {
    const envelope = Buffer.allocUnsafe(plain.length + envelopeOverheadBytes)
    this.sealInto(envelope, 0, plain)
    return envelope
  }

  /** Decrypts into `to`; returns the size, or undefined when the envelope is not of these keys or was changed. */
  openInto(envelope: Buffer, to: Buffer): number | undefined {
    if (envelope.length < envelopeOverheadBytes) return undefined
    const iv = envelope.subarray(0, ivBytes)
    const ciphertext = envelope.subarray(ivBytes, envelope.length - tagBytes)
    const tag = envelope.subarray(envelope.length - tagBytes)
    if (!timingSafeEqual(this.#tag(iv, ciphertext), tag) || isZero(iv)) return undefined
    this.#aes.apply(iv, ciphertext, to)
    return ciphertext.length
  }

  /** The plain bytes, or undefined when the envelope was not made under these keys or was changed. */
  tryOpen(envelope: Buffer): Buffer | undefined {
    const plain = Buffer.allocUnsafe(Math.max(0, envelope.length - envelopeOverheadBytes))
    return this.openInto(envelope, plain) === undefined ? undefined : plain
  }

  /** Like `tryOpen`, but throws `corrupt`, naming `what`. */
  open(envelope: Buffer, what: string): Buffer {
    const plain = this.tryOpen(envelope)
    if (!plain) throw new Fault('corrupt', `open ${what}: its authenticator does not match`)
    return plain
  }

  [Symbol.dispose](): void {
    this.#aes[Symbol.dispose]()
    this.#poly1305[Symbol.dispose]()
  }
}

function isZero(iv: Buffer): boolean {
  return iv.readBigUInt64LE(0) === 0n && iv.readBigUInt64LE(8) === 0n
}
