import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatSizeBytes, parseSizeBytes, Reader, Writer } from './bytes.ts'
import { isFault } from './faults.ts'

test('Reader gives back what Writer wrote, whatever the first buffer size', () => {
  for (const guess of [1, 7, 256]) {
    const bytes = new Writer(guess)
      .u8(0xff)
      .u16le(0x1234)
      .u16be(0x1234)
      .u32le(0xdeadbeef)
      .u32be(0xdeadbeef)
      .u64le(0x0123456789abcdefn)
      .u64be(0xfedcba9876543210n)
      .cstring('naïve 数据')
      .bytes(Buffer.from([1, 2, 3]))
      .done()
    const reader = new Reader(bytes, 'sample')
    assert.equal(reader.u8(), 0xff)
    assert.equal(reader.u16le(), 0x1234)
    assert.equal(reader.u16be(), 0x1234)
    assert.equal(reader.u32le(), 0xdeadbeef)
    assert.equal(reader.u32be(), 0xdeadbeef)
    assert.equal(reader.u64le(), 0x0123456789abcdefn)
    assert.equal(reader.u64be(), 0xfedcba9876543210n)
    assert.equal(reader.cstring(), 'naïve 数据')
    assert.deepEqual([...reader.rest()], [1, 2, 3])
    assert.equal(reader.left, 0)
  }
})

test('Reader refuses to read past its end, and says of what', () => {
  const bytes = new Writer().u32be(7).text('abc').done()
  for (let size = 0; size < bytes.length; size++) {
    const reader = new Reader(bytes.subarray(0, size), 'a cut message')
    assert.throws(
      () => reader.text(reader.u32be() - 4),
      (error) => isFault(error, 'protocol') && error.message.includes('a cut message'),
    )
  }
  assert.throws(() => new Reader(Buffer.from('no end'), 'a name').cstring(), /has no end/)
})

test('parseSizeBytes() knows decimal and binary units', () => {
  assert.equal(parseSizeBytes('64'), 64)
  assert.equal(parseSizeBytes('1.5KiB'), 1536)
  assert.equal(parseSizeBytes('50 MB'), 50_000_000)
  assert.equal(parseSizeBytes('2g'), 2 ** 31)
  for (const bad of ['', 'MB', '-1', '1e9', '5 apples', '999999999999t']) {
    assert.equal(parseSizeBytes(bad), undefined, bad)
  }
})

test('formatSizeBytes() keeps three or four digits', () => {
  assert.equal(formatSizeBytes(512), '512 B')
  assert.equal(formatSizeBytes(1536n), '1.50 KiB')
  assert.equal(formatSizeBytes(5 * 2 ** 30), '5.00 GiB')
})
