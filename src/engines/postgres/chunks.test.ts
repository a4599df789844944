import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/faults'
import { cutBlocks, parseRange, rangeCondition } from './chunks.ts'

test('cutBlocks() covers every block once, in chunks of about the wanted size, the last open', () => {
  const sizes = fc
    .record({
      count: fc.integer({ min: 0, max: 5000 }),
      // With what is stored beside the blocks.
      perBlock: fc.integer({ min: 8192, max: 1 << 20 }),
    })
    .map(({ count, perBlock }) => ({ count, sizeBytes: count * perBlock }))
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 1 << 26 }), (blocks, chunkBytes) => {
      const cuts = cutBlocks(blocks, chunkBytes)
      const ranges = cuts.map((cut) => parseRange(cut.range))
      let next = 0
      for (const [index, { first, end }] of ranges.entries()) {
        assert.equal(first, next)
        const isLast = index === ranges.length - 1
        assert.equal(end === undefined, isLast)
        next = end ?? blocks.count
        if (!isLast) assert.ok(next > first)
      }
      assert.equal(Math.max(next, blocks.count), blocks.count)
      const perBlock = blocks.sizeBytes / Math.max(1, blocks.count)
      for (const cut of cuts) assert.ok(cut.sizeBytes <= 2 * chunkBytes + perBlock + 1)
    }),
  )
})

test('rangeCondition() leaves the whole table without a condition', () => {
  assert.equal(rangeCondition(parseRange('0-')), undefined)
  assert.equal(rangeCondition(parseRange('0-5')), "ctid < '(5,0)'::tid")
  assert.equal(rangeCondition(parseRange('5-9')), "ctid >= '(5,0)'::tid and ctid < '(9,0)'::tid")
  assert.equal(rangeCondition(parseRange('9-')), "ctid >= '(9,0)'::tid")
  for (const bad of ['', '5', '-5', "0-1') or true", '1-2-3']) {
    assert.throws(
      () => parseRange(bad),
      (error) => isFault(error, 'protocol'),
      bad,
    )
  }
})
