import { randomBytes } from 'node:crypto'
import { Fault } from '#base/faults'

// Polynomials over GF(2) as the bits of a bigint. Only tables and tests of them are computed here; the
// loops over bytes are in wasm/assembly/kernels.ts.

export const polynomialDegree = 53
const windowBytes = 64

export function degree(p: bigint): number {
  let low = 0
  let rest = p
  for (; rest > 0xffff_ffffn; low += 32) rest >>= 32n
  return low + 31 - Math.clz32(Number(rest))
}

export function remainder(p: bigint, modulus: bigint): bigint {
  const limit = degree(modulus)
  let rest = p
  for (let at = degree(rest); at >= limit; at = degree(rest)) rest ^= modulus << BigInt(at - limit)
  return rest
}

function square(p: bigint, modulus: bigint): bigint {
  let product = 0n
  for (let rest = p, shift = 0n; rest !== 0n; rest >>= 1n, shift += 2n) {
    if (rest & 1n) product ^= 1n << shift
  }
  return remainder(product, modulus)
}

/**
 * Whether `p` is irreducible of degree 53: exactly when it divides x^(2^53) - x, the product of all irreducible
 * polynomials of degree 1 and 53, each once (Lidl and Niederreiter, "Finite Fields", theorem 3.20): two linear ones
 * are all that there are, and too short.
 */
export function isIrreducible(p: bigint): boolean {
  if (degree(p) !== polynomialDegree) return false
  let power = 2n
  for (let i = 0; i < polynomialDegree; i++) power = square(power, p)
  return power === 2n
}

/** A random irreducible polynomial of degree 53: one in about 26 candidates is. */
export function randomPolynomial(): bigint {
  for (;;) {
    const bits = randomBytes(8).readBigUInt64BE() & ((1n << BigInt(polynomialDegree)) - 1n)
    const candidate = bits | (1n << BigInt(polynomialDegree)) | 1n
    if (isIrreducible(candidate)) return candidate
  }
}

/** Reads the hexadecimal form that the config file bears; anything but an irreducible one is refused. */
export function parsePolynomial(text: string): bigint {
  const p = /^[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text}`) : 0n
  if (!isIrreducible(p)) {
    throw new Fault(
      'corrupt',
      `read config: chunker polynomial ${text.slice(0, 32)} is not irreducible of degree 53`,
    )
  }
  return p
}

/**
 * `reduce[b]` takes the byte b that stands above the degree to its remainder and clears it; `remove[b]` takes
 * the byte b out again that entered 64 bytes ago, as seen after the next byte has entered.
 */
export function removalTables(p: bigint): {
  readonly reduce: readonly bigint[]
  readonly remove: readonly bigint[]
} {
  const above = powersOfX(polynomialDegree, p)
  const left = powersOfX(8 * windowBytes, p)
  const reduce: bigint[] = []
  const remove: bigint[] = []
  for (let b = 0; b < 256; b++) {
    reduce.push(sumOf(above, b) | (BigInt(b) << BigInt(polynomialDegree)))
    remove.push(sumOf(left, b))
  }
  return { reduce, remove }
}

/** The remainders of x^from and of the seven powers behind it: those of the bits of a byte that stands there. */
function powersOfX(from: number, p: bigint): readonly bigint[] {
  const powers: bigint[] = []
  const top = 1n << BigInt(degree(p))
  let power = 1n
  for (let at = 0; at < from + 8; at++) {
    if (at >= from) powers.push(power)
    power <<= 1n
    if (power & top) power ^= p
  }
  return powers
}

function sumOf(powers: readonly bigint[], byte: number): bigint {
  return powers.reduce((sum, power, bit) => ((byte >> bit) & 1 ? sum ^ power : sum), 0n)
}
