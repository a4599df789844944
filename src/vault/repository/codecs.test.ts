import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { isFault } from '#base/faults'
import { createAesCtr } from './aes-ctr.ts'
import { sha256Hex } from './blob-id.ts'
import { BlobOpener } from './blob-opener.ts'
import { EnvelopeCipher } from './crypto.ts'
import { createMasterKeys } from './keys.ts'
import { nativeCalls } from './native-calls.ts'
import { createPoly1305 } from './poly1305.ts'
import { createZstd } from './zstd.ts'

const sizes = [0, 1, 15, 16, 17, 100, 4095, 4096, 70_000, 1_000_003]

function compressible(size: number): Buffer {
  return Buffer.from(
    Array.from({ length: size / 2 + 1 }, (_, i) => (i * i) % 997).join(' '),
  ).subarray(0, size)
}

test('this node exports the functions that are called directly', () => {
  assert.ok(nativeCalls())
})

for (const kind of ['native', 'portable'] as const) {
  const calls = kind === 'native' ? nativeCalls() : undefined

  test(`${kind} zstd packs what node's zlib unpacks, and the reverse`, () => {
    for (const level of [1, 3, 7, 11]) {
      using zstd = createZstd(level, calls ?? null)
      for (const size of sizes) {
        for (const plain of [compressible(size), randomBytes(size), Buffer.alloc(size)]) {
          // Not at the beginning of its memory: an offset must be honoured.
          const room = Buffer.alloc(zstd.bound(size) + 7).subarray(7)
          const packed = room.subarray(0, zstd.compress(plain, room))
          assert.ok(zstdDecompressSync(packed).equals(plain))
          const back = Buffer.alloc(size + 3).subarray(3)
          assert.equal(zstd.decompress(zstdCompressSync(plain), back), size)
          assert.ok(back.equals(plain))
        }
      }
    }
  })

  test(`${kind} zstd leaves nothing of one level behind for the next`, () => {
    using zstd = createZstd(3, calls ?? null)
    const plain = Buffer.concat([compressible(300_000), randomBytes(1000), compressible(90_000)])
    const pack = (by: typeof zstd, level: number) => {
      const room = Buffer.alloc(by.bound(plain.length))
      return room.subarray(0, by.compress(plain, room, level))
    }
    for (const level of [3, 1, 3, 7, 1]) {
      using fresh = createZstd(level, calls ?? null)
      assert.ok(pack(zstd, level).equals(pack(fresh, level)), `level ${level}`)
    }
  })

  test(`${kind} zstd says so when bytes are damaged, cut off, or more than fits`, () => {
    using zstd = createZstd(3, calls ?? null)
    const plain = compressible(5000)
    const packed = zstdCompressSync(plain)
    const to = Buffer.alloc(5000)
    assert.equal(zstd.decompress(packed, to.subarray(1)), undefined)
    assert.equal(zstd.decompress(packed, Buffer.alloc(0)), undefined)
    for (const size of [1, 4, 10, packed.length - 1]) {
      assert.equal(zstd.decompress(packed.subarray(0, size), to), undefined)
    }
    assert.equal(zstd.decompress(randomBytes(100), to), undefined)
  })

  test(`${kind} AES-256-CTR equals the other one, and undoes itself`, () => {
    const [key, iv] = [randomBytes(32), Buffer.from(`${'ff'.repeat(15)}fe`, 'hex')]
    using aes = createAesCtr(key, calls ?? null)
    using other = createAesCtr(key, kind === 'native' ? null : nativeCalls())
    for (const size of sizes) {
      const plain = randomBytes(size + 5).subarray(5)
      const [one, two] = [Buffer.alloc(size + 3).subarray(3), Buffer.alloc(size)]
      aes.apply(iv, plain, one)
      other.apply(iv, plain, two)
      assert.ok(one.equals(two))
      aes.apply(iv, one, two)
      assert.ok(two.equals(plain))
    }
  })
}

test('Poly1305 of OpenSSL equals that of the kernel, at any length and offset', () => {
  using native = createPoly1305(nativeCalls())
  using kernel = createPoly1305(null)
  for (const size of [...Array.from({ length: 100 }, (_, i) => i), ...sizes]) {
    const [key, message] = [randomBytes(37).subarray(5), randomBytes(size + 3).subarray(3)]
    assert.ok(native.tag(key, message).equals(kernel.tag(key, message)), `${size} bytes`)
  }
})

test('envelopes of the native and of the portable way open each other', () => {
  const keys = createMasterKeys()
  using native = new EnvelopeCipher(keys)
  using portable = new EnvelopeCipher(keys, undefined, null)
  for (const size of sizes) {
    const plain = randomBytes(size)
    assert.deepEqual(portable.tryOpen(native.seal(plain)), plain)
    assert.deepEqual(native.tryOpen(portable.seal(plain)), plain)
  }
})

test('an envelope opens under its keys, and with any bit changed it does not', () => {
  using cipher = new EnvelopeCipher(createMasterKeys())
  using other = new EnvelopeCipher(createMasterKeys())
  for (const size of [0, 1, 31, 100]) {
    const plain = randomBytes(size)
    const envelope = cipher.seal(plain)
    assert.equal(envelope.length, size + 32)
    assert.deepEqual(cipher.tryOpen(envelope), plain)
    assert.equal(other.tryOpen(envelope), undefined)
    for (let bit = 0; bit < envelope.length * 8; bit++) {
      const bad = Buffer.from(envelope)
      bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      assert.equal(cipher.tryOpen(bad), undefined)
    }
    for (let end = 0; end < envelope.length; end++) {
      assert.equal(cipher.tryOpen(envelope.subarray(0, end)), undefined)
    }
  }
})

test('a blob under the id of another, or of another size, is refused', () => {
  using cipher = new EnvelopeCipher(createMasterKeys())
  using opener = new BlobOpener(cipher)
  const plain = compressible(5000)
  const [raw, packed] = [cipher.seal(plain), cipher.seal(zstdCompressSync(plain))]
  const [id, type] = [sha256Hex(plain), 'data' as const]
  assert.ok(opener.open({ id, type, plainLength: 0 }, raw).equals(plain))
  assert.ok(opener.view({ id, type, plainLength: 5000 }, packed).equals(plain))
  const other = sha256Hex(Buffer.from('other'))
  for (const [blob, envelope] of [
    [{ id: other, type, plainLength: 0 }, raw],
    [{ id: other, type, plainLength: 5000 }, packed],
    [{ id, type, plainLength: 4999 }, packed],
    [{ id, type, plainLength: 5001 }, packed],
    [{ id, type, plainLength: 5000 }, raw],
    [{ id, type, plainLength: 0 }, packed],
  ] as const) {
    assert.throws(
      () => opener.open(blob, envelope),
      (e) => isFault(e, 'corrupt'),
    )
  }
})

test('no two envelopes of the same bytes are alike', () => {
  using cipher = new EnvelopeCipher(createMasterKeys())
  const seen = new Set(
    Array.from({ length: 1000 }, () => cipher.seal(Buffer.alloc(8)).toString('hex', 0, 16)),
  )
  assert.equal(seen.size, 1000)
})
