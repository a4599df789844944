import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { poly1305 } from '@noble/ciphers/_poly1305.js'
import { Kernels, kernelDataAt } from './kernels.ts'
import {
  degree,
  isIrreducible,
  parsePolynomial,
  randomPolynomial,
  remainder,
} from './polynomial.ts'

/** Poly1305 by its definition: one big number a block (RFC 8439, section 2.5.1). */
function plainTag(key: Buffer, message: Buffer): Buffer {
  const little = (bytes: Buffer) => BigInt(`0x0${Buffer.from(bytes).reverse().toString('hex')}`)
  const r = little(key.subarray(0, 16)) & 0x0ffffffc0ffffffc0ffffffc0fffffffn
  const prime = 2n ** 130n - 5n
  let sum = 0n
  for (let at = 0; at < message.length; at += 16) {
    const block = message.subarray(at, at + 16)
    sum = ((sum + little(block) + (1n << BigInt(8 * block.length))) * r) % prime
  }
  const tag = (sum + little(key.subarray(16))) & (2n ** 128n - 1n)
  return Buffer.from(tag.toString(16).padStart(32, '0'), 'hex').reverse()
}

/** The remainders of the 64 bytes before each position from `from` on: one bit at a time, no tables. */
function* fingerprints(bytes: Buffer, from: number, polynomial: bigint): Generator<bigint> {
  const append = (digest: bigint, byte: number) => {
    let rest = digest
    for (let bit = 7; bit >= 0; bit--) {
      rest = (rest << 1n) | BigInt((byte >> bit) & 1)
      if (rest >> 53n) rest ^= polynomial
    }
    return rest
  }
  const leaving = Array.from({ length: 256 }, (_, b) => remainder(BigInt(b) << 504n, polynomial))
  let digest = bytes.subarray(from - 64, from).reduce(append, 0n)
  for (let at = from; ; at++) {
    yield digest
    digest = append(digest ^ (leaving[bytes[at - 64] ?? 0] ?? 0n), bytes[at] ?? 0)
  }
}

function plainCut(from: number, end: number, fingerprint: Generator<bigint>, mask: number): number {
  for (let at = from; at <= end; at++) {
    if (((fingerprint.next().value as bigint) & BigInt(mask)) === 0n) return at
  }
  return 0
}

test('tag() equals Poly1305 by definition and by another library, at every length around the steps', () => {
  const kernels = new Kernels()
  const lengths = [...Array.from({ length: 300 }, (_, i) => i), 511, 512, 1000, 4096, 131_071]
  for (const length of [...lengths, 131_072, 131_073, 131_088, 262_144, 300_001]) {
    const [key, message] = [randomBytes(32), randomBytes(length)]
    const tag = Buffer.from(kernels.tag(key, message))
    assert.deepEqual(tag, Buffer.from(poly1305(message, key)), `length ${length}`)
    if (length < 5000) assert.deepEqual(tag, plainTag(key, message), `length ${length}`)
  }
})

test('tag() carries through extreme limbs', () => {
  const kernels = new Kernels()
  for (const fill of [0xff, 0xfe, 0x80, 0]) {
    for (const keyFill of [0xff, 0, 0x0f]) {
      for (const length of [16, 256, 272, 4096, 262_144 + 15]) {
        const [key, message] = [Buffer.alloc(32, keyFill), Buffer.alloc(length, fill)]
        assert.deepEqual(
          Buffer.from(kernels.tag(key, message)),
          Buffer.from(poly1305(message, key)),
        )
      }
    }
  }
})

test('findCut() finds the first cut, whatever lane it is in', () => {
  const polynomial = 0x3da3358b4dc173n
  const kernels = new Kernels(400_000)
  kernels.usePolynomial(polynomial)
  const at = kernelDataAt
  const cases = [
    [500, 0x1f],
    [3000, 0xff],
    [70_000, 0x3fff],
    [140_000, 0x7fff],
  ] as const
  for (const [size, mask] of cases) {
    const bytes = randomBytes(size)
    kernels.bytes.set(bytes, at)
    const fingerprint = fingerprints(bytes, 64, polynomial)
    for (let from = 64; ; ) {
      const cut = kernels.findCut(at + from, at + size, mask)
      const plain = plainCut(from, size, fingerprint, mask)
      assert.equal(cut === 0 ? 0 : cut - at, plain)
      if (cut === 0 || plain === size) break
      from = plain + 1
    }
  }
})

test('the fingerprint is the remainder of the last 64 bytes as one polynomial', () => {
  const polynomial = randomPolynomial()
  const bytes = randomBytes(200)
  const fingerprint = fingerprints(bytes, 64, polynomial)
  for (let at = 64; at < 200; at++) {
    const window = BigInt(`0x${bytes.subarray(at - 64, at).toString('hex')}`)
    assert.equal(fingerprint.next().value, remainder(window, polynomial))
  }
})

test('findCut() does not depend on where the search began', () => {
  const kernels = new Kernels(400_000)
  kernels.usePolynomial(randomPolynomial())
  kernels.bytes.set(randomBytes(400_000), kernelDataAt)
  const end = kernelDataAt + 400_000
  // Of so many random bytes one in e^24 has no cut.
  const mask = 0x3fff
  const first = kernels.findCut(kernelDataAt + 64, end, mask)
  assert.notEqual(first, 0)
  for (const back of [0, 1, 63, 64, 65, 16_383, 16_384]) {
    const from = Math.max(kernelDataAt + 64, first - back)
    assert.equal(kernels.findCut(from, end, mask), first)
  }
})

test('zeros are cut at once, and a mask that never fits yields 0', () => {
  const kernels = new Kernels(200_000)
  kernels.usePolynomial(randomPolynomial())
  assert.equal(
    kernels.findCut(kernelDataAt + 100, kernelDataAt + 200_000, 0xfffff),
    kernelDataAt + 100,
  )
  kernels.bytes.fill(1, kernelDataAt, kernelDataAt + 200_000)
  assert.equal(kernels.findCut(kernelDataAt + 100, kernelDataAt + 200_000, 0xfffff), 0)
})

test('random polynomials are irreducible of degree 53, and products are not', () => {
  for (let i = 0; i < 5; i++) {
    const p = randomPolynomial()
    assert.equal(degree(p), 53)
    assert.equal(parsePolynomial(p.toString(16)), p)
  }
  assert.equal(isIrreducible(0x3da3358b4dc173n), true)
  assert.equal(isIrreducible(0x3da3358b4dc172n), false)
  for (const text of [
    '',
    '0',
    '3',
    '3da3358b4dc172',
    '3da3358b4dc175',
    'zz',
    `1${'0'.repeat(15)}`,
  ]) {
    assert.throws(() => parsePolynomial(text), /not irreducible/)
  }
})
