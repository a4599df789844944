import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { decodeIncrementalHead, toExtents, wholePath, wholeSizeBytes } from './incremental.ts'

const page = 8192

function incremental(blocks: readonly number[], truncatedAt: number): Buffer {
  const head = Buffer.alloc(12 + 4 * blocks.length)
  head.writeUInt32LE(0xd3ae1f0d, 0)
  head.writeUInt32LE(blocks.length, 4)
  head.writeUInt32LE(truncatedAt, 8)
  for (const [index, block] of blocks.entries()) head.writeUInt32LE(block, 12 + 4 * index)
  if (blocks.length === 0) return head
  const padding = Buffer.alloc(page - (head.length % page))
  return Buffer.concat([head, padding, ...blocks.map((block) => Buffer.alloc(page, block + 1))])
}

/** Lays an incremental file over its parent: what a sink does with the extents. */
async function apply(parent: Buffer, bytes: Buffer, piece: number): Promise<Buffer> {
  let head
  let at = 0
  while (!(head = decodeIncrementalHead(bytes.subarray(0, at), 'f'))) at += piece
  const rest = bytes.subarray(head.sizeBytes)
  const pieces = (async function* () {
    for (let from = 0; from < rest.length; from += piece) yield rest.subarray(from, from + piece)
  })()
  const whole = Buffer.alloc(wholeSizeBytes(head))
  parent.copy(whole)
  for await (const { offset, bytes: extent } of toExtents(head, pieces, 'f'))
    extent.copy(whole, offset)
  return whole
}

const summary = (bytes: Buffer) =>
  Array.from({ length: bytes.length / page }, (_, index) => bytes[index * page])

test('an incremental file over its parent gives the whole one, however it is cut', async () => {
  const parent = Buffer.alloc(6 * page, 100)
  for (const piece of [1000, 8192, 100_000]) {
    const changed = incremental([1, 3], 6)
    assert.deepEqual(summary(await apply(parent, changed, piece)), [100, 2, 100, 4, 100, 100])
    assert.deepEqual(summary(await apply(parent, incremental([], 2), piece)), [100, 100])
    const grown = incremental([2, 7], 6)
    assert.deepEqual(summary(await apply(parent, grown, piece)), [100, 100, 3, 100, 100, 100, 0, 8])
  }
})

test('pages behind a truncation are zero, whatever the parent held there', async () => {
  const parent = Buffer.alloc(6 * page, 100)
  assert.deepEqual(summary(await apply(parent, incremental([4], 2), 5000)), [100, 100, 0, 0, 5])
})

test('heads that cannot be are refused', () => {
  const wrong: readonly Buffer[] = [
    Buffer.alloc(page),
    incremental([3, 3], 6),
    incremental([5, 2], 6),
    incremental([], 200_000),
  ]
  for (const bytes of wrong) {
    assert.throws(
      () => decodeIncrementalHead(bytes, 'f'),
      (error) => isFault(error, 'corrupt'),
    )
  }
})

test('too few and too many bytes are refused', async () => {
  const bytes = incremental([1, 3], 6)
  const parent = Buffer.alloc(6 * page)
  const refused = (error: unknown) => isFault(error, 'protocol')
  await assert.rejects(apply(parent, bytes.subarray(0, bytes.length - 1), 8192), refused)
  await assert.rejects(apply(parent, Buffer.concat([bytes, Buffer.alloc(1)]), 8192), refused)
})

test('wholePath() knows incremental files by their name', () => {
  assert.equal(wholePath('base/5/INCREMENTAL.1259.1'), 'base/5/1259.1')
  assert.equal(wholePath('INCREMENTAL.x'), 'x')
  assert.equal(wholePath('base/5/1259'), undefined)
})
