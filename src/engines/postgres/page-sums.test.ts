import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import type { InspectorRoom, WebMemory } from '#base/blocks'
import { createInspector, inspectPages, joinSaid } from './page-inspector.ts'
import { Crc32c, formatCrc32c, joinCrc32c, PageSums } from './page-sums.ts'
import { pageChecksum } from './pages.kernel.ts'

declare const WebAssembly: { Memory: new (size: { initial: number }) => WebMemory }

const at = 65_536

function makeRoom(): InspectorRoom {
  return {
    memory: new WebAssembly.Memory({ initial: 20 }),
    scratchAt: 32_768,
    scratchBytes: 32_768,
  }
}

/** Bit by bit, as RFC 3720, appendix B, has it. */
function plainCrc(bytes: Uint8Array): number {
  return ~plainCrcFrom(0xffffffff, bytes) >>> 0
}

function plainCrcFrom(first: number, bytes: Uint8Array): number {
  let sum = first
  for (const byte of bytes) {
    sum ^= byte
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (0x82f63b78 & -(sum & 1))
  }
  return sum
}

/** Sound pages of one relation, the first of them its block `block`. */
function somePages(count: number, block: number): Buffer {
  const bytes = randomBytes(count * 8192)
  for (let page = 0; page < count; page += 1) {
    bytes.fill(0, page * 8192, page * 8192 + 8)
    bytes.writeUInt16LE(100, page * 8192 + 14)
    bytes.writeUInt16LE(pageChecksum(bytes, page * 8192, block + page), page * 8192 + 8)
  }
  return bytes
}

test('CRC-32C is that of the RFC, at every length around the steps, in pieces and joined', () => {
  const crc = new Crc32c()
  assert.equal(crc.extend(0, Buffer.from('123456789')), 0xe3069283)
  assert.equal(formatCrc32c(0xe3069283), '839206e3')
  const bytes = randomBytes(200_000)
  for (let size = 0; size < 70; size += 1) {
    assert.equal(crc.extend(0, bytes.subarray(0, size)), plainCrc(bytes.subarray(0, size)))
  }
  // Where tables alone end, where windows of 8 KiB do, and unaligned.
  for (const size of [10_655, 10_656, 13_519, 13_520, 13_521, 13_535, 13_536, 21_713, 65_536]) {
    const part = bytes.subarray(7, 7 + size)
    assert.equal(crc.extend(size, part), ~plainCrcFrom(~size, part) >>> 0, `${size} bytes`)
  }
  const whole = plainCrc(bytes)
  assert.equal(crc.extend(0, bytes), whole)
  for (const cut of [0, 1, 17, 65_536, 131_071, 199_999, 200_000]) {
    const [first, second] = [bytes.subarray(0, cut), bytes.subarray(cut)]
    assert.equal(crc.extend(crc.extend(0, first), second), whole, `cut at ${cut}`)
    const [a, b] = [crc.extend(0, first), crc.extend(0, second)]
    assert.equal(joinCrc32c(a, b, second.length), whole, `joined at ${cut}`)
  }
})

test('the vector kernel finds the pages whose checksums are wrong, and passes over new ones', () => {
  const sums = new PageSums(makeRoom())
  const pages = somePages(16, 1_000_000)
  pages.fill(0, 5 * 8192, 6 * 8192)
  pages.copy(sums.bytes, at)
  assert.deepEqual(sums.wrongPages(at, 16, 1_000_000), [])
  assert.equal(sums.wrongPages(at, 16, 1_000_001).length, 15)
  for (let page = 0; page < 16; page += 1) {
    if (page === 5) continue
    const place = at + page * 8192 + ((page * 523 + 16) % 8192)
    sums.bytes[place] = (sums.bytes[place] ?? 0) ^ (1 << (page % 8))
    assert.deepEqual(sums.wrongPages(at, 16, 1_000_000), [page], `page ${page}`)
    sums.bytes[place] = (sums.bytes[place] ?? 0) ^ (1 << (page % 8))
  }
})

test('the inspector tells sums and damaged pages of each block, newer pages passed over', () => {
  const room = makeRoom()
  const inspect = createInspector(room)
  const file = somePages(20, 131_072)
  for (const page of [3, 18]) file[page * 8192 + 4000] = (file[page * 8192 + 4000] ?? 0) ^ 4
  // Changed behind the beginning of the backup: it may be torn.
  file.writeUInt32LE(0, 18 * 8192)
  file.writeUInt32LE(500, 18 * 8192 + 4)
  const memory = Buffer.from(room.memory.buffer)
  const said = (before: bigint) => {
    const { setup } = inspectPages({ firstBlock: 131_072, before, isSummed: true })
    const blocks = [0, 8, 16].map((page) => {
      const block = file.subarray(page * 8192, (page + 8) * 8192)
      memory.set(block, at)
      return inspect(at, block.length, page * 8192, setup)
    })
    return joinSaid({ sizeBytes: file.length, said: blocks })
  }
  const sum = formatCrc32c(plainCrc(file))
  assert.deepEqual(said(501n), { sum, damaged: [3, 18] })
  assert.deepEqual(said(500n).damaged, [3])
})
