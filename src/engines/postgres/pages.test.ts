import assert from 'node:assert/strict'
import { test } from 'node:test'
import { firstBlockOf, PageCheck } from './pages.ts'
import { pageChecksum } from './pages.kernel.ts'

/** The checksum as its definition reads, with no thought of speed: the twin of the kernel. */
function plainChecksum(page: Buffer, block: number): number {
  const bases = [
    0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c,
    0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb,
    0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de, 0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4,
    0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756,
  ].map(BigInt)
  const copy = Buffer.from(page)
  copy.writeUInt16LE(0, 8)
  const step = (sum: bigint, value: bigint) => {
    const mixed = sum ^ value
    return ((mixed * 16777619n) & 0xffffffffn) ^ (mixed >> 17n)
  }
  let sums = bases
  for (let at = 0; at < copy.length; at += 128) {
    sums = sums.map((sum, lane) => step(sum, BigInt(copy.readUInt32LE(at + lane * 4))))
  }
  for (const round of [1, 2]) sums = sums.map((sum) => (round > 0 ? step(sum, 0n) : sum))
  const folded = sums.reduce((a, b) => a ^ b) ^ BigInt(block)
  return Number((folded % 65535n) + 1n)
}

function somePage(seed: number): Buffer {
  const page = Buffer.alloc(8192)
  let state = seed
  for (let at = 0; at < page.length; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    page[at] = state >>> 16
  }
  return page
}

test('the kernel agrees with the plain definition', () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const page = somePage(seed)
    assert.equal(pageChecksum(page, 0, seed * 7), plainChecksum(page, seed * 7), `seed ${seed}`)
  }
})

test('PageCheck finds every flipped byte of a page, however the file is cut', () => {
  const pages = [1, 2, 3].map((seed, index) => {
    const page = somePage(seed)
    page.writeUInt16LE(100, 14)
    page.writeUInt16LE(pageChecksum(page, 0, 40 + index), 8)
    return page
  })
  const file = Buffer.concat(pages)
  const damagedIn = (bytes: Buffer, piece: number) => {
    const check = new PageCheck('base/1/2', 40)
    for (let at = 0; at < bytes.length; at += piece) check.feed(bytes.subarray(at, at + piece))
    return check.damaged.map((one) => one.page)
  }
  for (const piece of [100, 8192, 9000, 100_000]) assert.deepEqual(damagedIn(file, piece), [])
  for (let at = 8192 + 16; at < 2 * 8192; at += 97) {
    const bad = Buffer.from(file)
    bad[at] = (bad[at] ?? 0) ^ 0x10
    assert.deepEqual(damagedIn(bad, 5000), [1], `byte ${at}`)
  }
})

test('PageCheck passes over pages that are newer than the backup, and new ones', () => {
  const newer = somePage(4)
  newer.writeUInt32LE(0, 0)
  newer.writeUInt32LE(500, 4)
  newer.writeUInt16LE(100, 14)
  const check = new PageCheck('base/1/2', 0, 400n)
  check.feed(newer)
  check.feed(Buffer.alloc(8192))
  assert.deepEqual(check.damaged, [])
  const older = new PageCheck('base/1/2', 0, 501n)
  older.feed(newer)
  assert.equal(older.damaged.length, 1)
})

test('firstBlockOf() knows relation files from others', () => {
  assert.equal(firstBlockOf('base/5/16384'), 0)
  assert.equal(firstBlockOf('base/5/16384_fsm'), 0)
  assert.equal(firstBlockOf('base/5/16384.3'), 3 * 131_072)
  assert.equal(firstBlockOf('global/1262'), 0)
  assert.equal(firstBlockOf('pg_tblspc/16400/PG_17_202406281/5/16401_vm.1'), 131_072)
  for (const name of [
    'PG_VERSION',
    'base/5/PG_VERSION',
    'base/5/pg_filenode.map',
    'pg_xact/0000',
    'global/pg_control',
    'base/5/INCREMENTAL.1',
  ]) {
    assert.equal(firstBlockOf(name), undefined, name)
  }
})
