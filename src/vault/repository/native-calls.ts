import { createRequire } from 'node:module'
import type koffi from 'koffi'
import { assert } from '#base/faults'

/** An address of foreign memory. */
export type Address = bigint

/**
 * Functions of libzstd and OpenSSL that node has inside of itself and exports. Called directly they work from the
 * caller's memory to the caller's memory; node's own wrappers make a context, its JavaScript objects and fresh
 * memory for every call, which for chunks costs as much as the work itself, and for small files ten times as much.
 * zstd: https://facebook.github.io/zstd/zstd_manual.html; OpenSSL: EVP_EncryptInit(3).
 */
export type NativeCalls = {
  memcpy(to: Buffer, from: Uint8Array, size: number): Address
  ZSTD_createCCtx(): Address | null
  ZSTD_freeCCtx(context: Address): number
  ZSTD_CCtx_setParameter(context: Address, parameter: number, value: number): number
  ZSTD_compressBound(size: number): number
  ZSTD_compress2(context: Address, to: Buffer, room: number, from: Uint8Array, size: number): Size
  ZSTD_createDCtx(): Address | null
  ZSTD_freeDCtx(context: Address): number
  ZSTD_decompressDCtx(
    context: Address,
    to: Buffer,
    room: number,
    from: Uint8Array,
    size: number,
  ): Size
  EVP_CIPHER_CTX_new(): Address | null
  EVP_CIPHER_CTX_free(context: Address): void
  EVP_aes_256_ctr(): Address | null
  EVP_EncryptInit_ex(
    context: Address,
    cipher: Address | null,
    engine: null,
    key: Uint8Array | null,
    iv: Uint8Array | null,
  ): number
  EVP_EncryptUpdate(
    context: Address,
    to: Buffer,
    written: Buffer,
    from: Uint8Array,
    size: number,
  ): number
  EVP_MAC_fetch(library: null, name: string, properties: null): Address | null
  EVP_MAC_free(mac: Address): void
  EVP_MAC_CTX_new(mac: Address): Address | null
  EVP_MAC_CTX_free(context: Address): void
  EVP_MAC_init(context: Address, key: Uint8Array, size: number, parameters: null): number
  EVP_MAC_update(context: Address, from: Uint8Array, size: number): number
  EVP_MAC_final(context: Address, to: Buffer, written: Buffer, room: number): number
}

/** A size_t: error codes are sizes close to 2^64. */
type Size = number | bigint

const signatures: Readonly<Record<keyof NativeCalls, string>> = {
  memcpy: 'void *memcpy(void *, const void *, size_t)',
  ZSTD_createCCtx: 'void *ZSTD_createCCtx()',
  ZSTD_freeCCtx: 'size_t ZSTD_freeCCtx(void *)',
  ZSTD_CCtx_setParameter: 'size_t ZSTD_CCtx_setParameter(void *, int, int)',
  ZSTD_compressBound: 'size_t ZSTD_compressBound(size_t)',
  ZSTD_compress2: 'size_t ZSTD_compress2(void *, void *, size_t, const void *, size_t)',
  ZSTD_createDCtx: 'void *ZSTD_createDCtx()',
  ZSTD_freeDCtx: 'size_t ZSTD_freeDCtx(void *)',
  ZSTD_decompressDCtx: 'size_t ZSTD_decompressDCtx(void *, void *, size_t, const void *, size_t)',
  EVP_CIPHER_CTX_new: 'void *EVP_CIPHER_CTX_new()',
  EVP_CIPHER_CTX_free: 'void EVP_CIPHER_CTX_free(void *)',
  EVP_aes_256_ctr: 'const void *EVP_aes_256_ctr()',
  EVP_EncryptInit_ex:
    'int EVP_EncryptInit_ex(void *, const void *, void *, const void *, const void *)',
  EVP_EncryptUpdate: 'int EVP_EncryptUpdate(void *, void *, void *, const void *, int)',
  EVP_MAC_fetch: 'void *EVP_MAC_fetch(void *, const char *, const char *)',
  EVP_MAC_free: 'void EVP_MAC_free(void *)',
  EVP_MAC_CTX_new: 'void *EVP_MAC_CTX_new(void *)',
  EVP_MAC_CTX_free: 'void EVP_MAC_CTX_free(void *)',
  EVP_MAC_init: 'int EVP_MAC_init(void *, const void *, size_t, const void *)',
  EVP_MAC_update: 'int EVP_MAC_update(void *, const void *, size_t)',
  EVP_MAC_final: 'int EVP_MAC_final(void *, void *, void *, size_t)',
}

let looked: { readonly calls: NativeCalls | undefined } | undefined

/** Copies all of `from`. The engine's own way is slow for shared memory, which others might be writing to. */
export function copyBytes(to: Buffer, from: Uint8Array): void {
  assert(to.length >= from.length, 'the copy has room')
  const calls = nativeCalls()
  if (calls) calls.memcpy(to, from, from.length)
  else to.set(from)
}

/** The functions, looked for once a thread; undefined where this node does not export them all. */
export function nativeCalls(): NativeCalls | undefined {
  looked ??= { calls: look() }
  return looked.calls
}

// Parameters of mallopt(3), and what they are set to.
const trimThreshold = -1
const mapThreshold = -3
const keptBytesMax = 4 * 1024 * 1024

/**
 * Has freed memory go back to the system. On its own glibc takes the largest block that was ever freed for the usual
 * one, and from then on each thread keeps up to 64 MiB that nobody uses.
 */
function keepLittle(library: ReturnType<typeof koffi.load>): void {
  try {
    const mallopt = library.func('int mallopt(int, int)') as (name: number, value: number) => number
    mallopt(mapThreshold, keptBytesMax)
    mallopt(trimThreshold, keptBytesMax)
  } catch (error) {
    // Other C libraries have no such habit, and no such function.
    if (!(error instanceof Error)) throw error
  }
}

function look(): NativeCalls | undefined {
  try {
    const library = (createRequire(import.meta.url)('koffi') as typeof koffi).load(null)
    keepLittle(library)
    const found = Object.entries(signatures).map(([name, text]) => [name, library.func(text)])
    return Object.fromEntries(found) as NativeCalls
  } catch (error) {
    // Correct without them, only slower: another build of node, another system.
    if (error instanceof Error) return undefined
    throw error
  }
}
