import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import {
  formatHistory,
  formatLsn,
  fromAt,
  parseHistory,
  parseLsn,
  parseSegmentName,
  parseTimelineHistory,
  segmentName,
  toAt,
  tryParseLsn,
} from './lsn.ts'

test('an LSN is the same in all its forms', () => {
  const lsn = 0x16_b374d848n
  assert.equal(formatLsn(lsn), '16/B374D848')
  assert.equal(parseLsn('16/b374d848'), lsn)
  assert.equal(toAt(lsn), '00000016B374D848')
  assert.equal(fromAt(toAt(lsn)), lsn)
  for (const text of ['', '16', '16/', '/1', '1/123456789', 'x/1', '1/1 ']) {
    assert.equal(tryParseLsn(text), undefined, text)
  }
  assert.throws(
    () => fromAt('16/1'),
    (error) => isFault(error, 'protocol'),
  )
})

test('positions sort as the log runs', () => {
  const lsns = [0n, 1n, 0xffff_ffffn, 0x1_0000_0000n, 0xff_0000_0000n, 0x100_0000_0000n]
  const sorted = lsns.map(toAt)
  assert.deepEqual(sorted.toSorted(), sorted)
})

test('segment names follow the segment size', () => {
  const mib = 1 << 20
  assert.equal(segmentName(3, 0x16_b374d848n, 16 * mib), '0000000300000016000000B3')
  assert.equal(segmentName(1, 0x1_0000_0000n, 64 * mib), '000000010000000100000000')
  for (const size of [mib, 16 * mib, 64 * mib, 1024 * mib]) {
    const first = 0x5_c000_0000n
    const name = segmentName(0xabc, first, size)
    assert.deepEqual(parseSegmentName(name, size), { timeline: 0xabc, first })
  }
  assert.equal(parseSegmentName('00000002.history', mib), undefined)
})

test('histories name the system and the timeline', () => {
  const of = { systemId: '7710604786102834134', timeline: 0x1f }
  assert.equal(formatHistory(of), '7710604786102834134-0000001F')
  assert.deepEqual(parseHistory(formatHistory(of)), of)
  assert.throws(
    () => parseHistory('0-1'),
    (error) => isFault(error, 'source-changed'),
  )
})

test('a timeline history is read with its comments', () => {
  const text = `# written by hand\n1\t0/3000060\tno recovery target specified\n\n2\t1/A0\tbefore "x"\n`
  assert.deepEqual(parseTimelineHistory(text), [
    { timeline: 1, switchedAt: 0x3000060n },
    { timeline: 2, switchedAt: 0x1_0000_00a0n },
  ])
})
