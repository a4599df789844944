import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { RowBlock } from '#change/copy'
import { parseRate, Throttle } from './throttle.ts'

test('parseRate() reads bytes and rows, and refuses the rest', () => {
  assert.deepEqual(parseRate('50MB/s'), { unit: 'bytes', perSecond: 50_000_000 })
  assert.deepEqual(parseRate('64MiB'), { unit: 'bytes', perSecond: 64 * 2 ** 20 })
  assert.deepEqual(parseRate('100000rows/s'), { unit: 'rows', perSecond: 100_000 })
  for (const text of [
    '',
    '0',
    '0rows/s',
    '-1MB/s',
    'rows/s',
    '5rows',
    'fast',
    '1e9rows/s',
    '5MB/h',
  ]) {
    assert.throws(
      () => parseRate(text),
      (error) => isFault(error, 'usage'),
      text,
    )
  }
})

/** A clock that only sleep moves. */
class Clock {
  ms = 1000
  slept = 0
  now = () => this.ms
  monotonicMs = () => this.ms
  sleep = async (ms: number) => {
    this.ms += ms
    this.slept += 1
  }
}

async function* blocks(count: number, rows: number, size: number): AsyncIterable<RowBlock> {
  for (let index = 0; index < count; index++) yield { rows, bytes: Buffer.alloc(size) }
}

const { signal } = new AbortController()

test('rows come as fast as the rate allows, and not faster', async () => {
  const clock = new Clock()
  const throttle = new Throttle({ unit: 'rows', perSecond: 1000 }, clock)
  let rows = 0
  for await (const block of throttle.slow(blocks(100, 100, 1), signal)) rows += block.rows
  assert.equal(rows, 10_000)
  // Ten seconds' worth; what the bucket held, and the last block, are not waited for.
  assert.ok(clock.ms - 1000 >= 9_600 && clock.ms - 1000 <= 10_000, `${clock.ms}`)
})

test('one rate holds for all chunks that are read side by side', async () => {
  const clock = new Clock()
  const throttle = new Throttle({ unit: 'bytes', perSecond: 1000 }, clock)
  const read = async () => {
    let size = 0
    for await (const block of throttle.slow(blocks(50, 1, 100), signal)) size += block.bytes.length
    return size
  }
  assert.deepEqual(await Promise.all([read(), read()]), [5000, 5000])
  assert.ok(clock.ms - 1000 >= 9_600, `${clock.ms}`)
})

test('a pause is not made up for by a flood', async () => {
  const clock = new Clock()
  const throttle = new Throttle({ unit: 'rows', perSecond: 1000 }, clock)
  for await (const _ of throttle.slow(blocks(1, 100, 1), signal)) clock.ms += 60_000
  const beganMs = clock.ms
  for await (const _ of throttle.slow(blocks(20, 100, 1), signal)) continue
  assert.ok(clock.ms - beganMs >= 1_600, `${clock.ms - beganMs}`)
})
