import { assert } from '#base/faults'
import { Kernels } from './kernels.ts'
import { nativeCalls, type Address, type NativeCalls } from './native-calls.ts'

export const tagBytes = 16

/** Poly1305 (RFC 8439, section 2.5). Of one thread; to be disposed of. */
export interface Poly1305 extends Disposable {
  /** The tag of `message` under a one-time key of 32 bytes; the next call overwrites it. */
  tag(key: Uint8Array, message: Uint8Array): Buffer
}

export function createPoly1305(
  calls: NativeCalls | null = nativeCalls() ?? null,
  kernels?: Kernels,
): Poly1305 {
  return calls ? new NativePoly1305(calls) : new KernelPoly1305(kernels ?? new Kernels())
}

/** OpenSSL's: five times as fast as the kernel, since WebAssembly knows no wider vectors. EVP_MAC(3). */
class NativePoly1305 implements Poly1305 {
  readonly #calls: NativeCalls
  #context: Address | undefined
  readonly #tag = Buffer.alloc(tagBytes)
  readonly #written = Buffer.alloc(8)

  constructor(calls: NativeCalls) {
    this.#calls = calls
    const kind = calls.EVP_MAC_fetch(null, 'POLY1305', null)
    assert(kind !== null, 'OpenSSL knows Poly1305')
    this.#context = calls.EVP_MAC_CTX_new(kind) ?? undefined
    // The context holds on to it.
    calls.EVP_MAC_free(kind)
    assert(this.#context !== undefined, 'there is memory for a MAC context')
  }

  tag(key: Uint8Array, message: Uint8Array): Buffer {
    assert(key.length === 32, 'a one-time key has 32 bytes')
    assert(this.#context !== undefined, 'the MAC is not disposed of yet')
    const begun = this.#calls.EVP_MAC_init(this.#context, key, key.length, null)
    const taken = this.#calls.EVP_MAC_update(this.#context, message, message.length)
    const { length } = this.#tag
    const ended = this.#calls.EVP_MAC_final(this.#context, this.#tag, this.#written, length)
    assert(begun === 1 && taken === 1 && ended === 1, 'OpenSSL computes a tag')
    return this.#tag
  }

  [Symbol.dispose](): void {
    // Also wipes the last key.
    if (this.#context !== undefined) this.#calls.EVP_MAC_CTX_free(this.#context)
    this.#context = undefined
  }
}

class KernelPoly1305 implements Poly1305 {
  readonly #kernels: Kernels

  constructor(kernels: Kernels) {
    this.#kernels = kernels
  }

  tag(key: Uint8Array, message: Uint8Array): Buffer {
    return this.#kernels.tag(key, message)
  }

  [Symbol.dispose](): void {
    // The memory goes with the kernels.
  }
}
