import { randomBytes } from 'node:crypto'
import { Fault } from '#base/faults'

// Polynomials over GF(2) as the bits of a bigint. Only tables and tests of them are computed here; the
// loops over bytes are in wasm/assembly/kernels.ts.

export const polynomialDegree = 53
const windowBytes = 64

export function degree(p: bigint): number {
  const digits = p.toString(16)
  return digits.length * 4 - 1 - (Math.clz32(Number(`0x${digits.charAt(0)}`)) - 28)
}

export function remainder(p: bigint, modulus: bigint): bigint {
  const limit = degree(modulus)
  let rest = p
  for (let at = degree(rest); at >= limit; at = degree(rest)) rest ^= modulus << BigInt(at - limit)
  return rest
}

function greatestDivisor(a: bigint, b: bigint): bigint {
  let [left, right] = [a, b]
  while (right !== 0n) [left, right] = [right, remainder(left, right)]
  return left
}

function square(p: bigint, modulus: bigint): bigint {
  let product = 0n
  for (let rest = p, shift = 0n; rest !== 0n; rest >>= 1n, shift += 2n) {
    if (rest & 1n) product ^= 1n << shift
  }
  return remainder(product, modulus)
}

/**
 * Whether `p` has no divisors: Ben-Or's test, which asks for common divisors with x^(2^i) - x
 * (Gao and Panario, "Tests and constructions of irreducible polynomials over finite fields").
 */
export function isIrreducible(p: bigint): boolean {
  let power = 2n
  for (let i = 1; i <= degree(p) / 2; i++) {
    power = square(power, p)
    if (greatestDivisor(p, power ^ 2n) !== 1n) return false
  }
  return true
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
  if (degree(p) !== polynomialDegree || !isIrreducible(p)) {
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
  const reduce: bigint[] = []
  const remove: bigint[] = []
  for (let b = 0n; b < 256n; b++) {
    const above = b << BigInt(polynomialDegree)
    reduce.push(remainder(above, p) | above)
    remove.push(remainder(b << BigInt(8 * windowBytes), p))
  }
  return { reduce, remove }
}
