import { createCipheriv, createSecretKey, type KeyObject } from 'node:crypto'
import { assert } from '#base/faults'
import { nativeCalls, type Address, type NativeCalls } from './native-calls.ts'

/** AES-256 in counter mode under one key: the same call encrypts and decrypts. Of one thread; to be disposed of. */
export interface AesCtr extends Disposable {
  /** Writes `from` under the key stream that begins with the counter `iv` into `to`, as many bytes. */
  apply(iv: Uint8Array, from: Uint8Array, to: Buffer): void
}

export function createAesCtr(
  key: Uint8Array,
  calls: NativeCalls | null = nativeCalls() ?? null,
): AesCtr {
  return calls ? new NativeAesCtr(key, calls) : new PortableAesCtr(key)
}

class NativeAesCtr implements AesCtr {
  readonly #calls: NativeCalls
  #context: Address | undefined
  readonly #written = Buffer.alloc(4)

  constructor(key: Uint8Array, calls: NativeCalls) {
    assert(key.length === 32, 'an AES-256 key has 32 bytes')
    this.#calls = calls
    this.#context = calls.EVP_CIPHER_CTX_new() ?? undefined
    assert(this.#context, 'there is memory for a cipher context')
    const begun = calls.EVP_EncryptInit_ex(this.#context, calls.EVP_aes_256_ctr(), null, key, null)
    assert(begun === 1, 'OpenSSL knows AES-256-CTR')
  }

  apply(iv: Uint8Array, from: Uint8Array, to: Buffer): void {
    assert(
      iv.length === 16 && to.length >= from.length,
      'a counter has 16 bytes, the output has room',
    )
    assert(this.#context !== undefined, 'the cipher is not disposed of yet')
    const begun = this.#calls.EVP_EncryptInit_ex(this.#context, null, null, null, iv)
    const { length } = from
    const done = this.#calls.EVP_EncryptUpdate(this.#context, to, this.#written, from, length)
    assert(begun === 1 && done === 1, 'OpenSSL encrypts')
  }

  [Symbol.dispose](): void {
    // Also wipes the key.
    if (this.#context !== undefined) this.#calls.EVP_CIPHER_CTX_free(this.#context)
    this.#context = undefined
  }
}

class PortableAesCtr implements AesCtr {
  readonly #key: KeyObject

  constructor(key: Uint8Array) {
    this.#key = createSecretKey(key)
  }

  apply(iv: Uint8Array, from: Uint8Array, to: Buffer): void {
    createCipheriv('aes-256-ctr', this.#key, iv).update(from).copy(to)
  }

  [Symbol.dispose](): void {
    // The key goes with this object.
  }
}
