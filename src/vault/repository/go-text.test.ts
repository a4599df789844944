import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  escapeJson,
  escapeJsonBytes,
  formatTimeNs,
  isGoPrintable,
  parseTimeNs,
  quoteName,
  unquoteName,
} from './go-text.ts'

test('isGoPrintable() equals strconv.IsPrint of Go 1.26 for every code point', () => {
  const hash = createHash('sha256')
  let first = -1
  for (let point = 0; point <= 0x110000; point++) {
    const printable = point <= 0x10ffff && isGoPrintable(point)
    if (printable && first < 0) first = point
    if (!printable && first >= 0) {
      hash.update(`${first.toString(16)} ${(point - 1).toString(16)}\n`)
      first = -1
    }
  }
  // Of the 711 ranges that a Go program prints in this form. A newer Unicode in Node turns this red.
  assert.equal(
    hash.digest('hex'),
    'd8b5b48cb66658b1a50d25396257b4f67679d8e8cd84496ea7a7a3cea8eb13a0',
  )
})

const names: readonly (readonly [Buffer, string])[] = [
  [Buffer.from('plain name.txt'), 'plain name.txt'],
  [Buffer.from('<html>&amp;'), '\\u003chtml\\u003e\\u0026amp;'],
  [Buffer.from('new\nline\ttab'), 'new\\\\nline\\\\ttab'],
  [Buffer.from('quote"s\'and\\back'), 'quote\\\\\\"s\'and\\\\\\\\back'],
  [Buffer.from('\x01\x7f\x1b'), '\\\\x01\\\\x7f\\\\x1b'],
  [
    Buffer.from('nbsp\u00a0zwj\u200dbom\ufeffpriv\ue000'),
    'nbsp\\\\u00a0zwj\\\\u200dbom\\\\ufeffpriv\\\\ue000',
  ],
  [Buffer.from('\u2028'), '\\\\u2028'],
  [Buffer.from('em😀ji 한中 ́ \ufffd'), 'em😀ji 한中 ́ \ufffd'],
  [Buffer.from('\u{e0001}'), '\\\\U000e0001'],
  [Buffer.from('bad\xff\xfe', 'latin1'), 'bad\\\\xff\\\\xfe'],
  [Buffer.from('\xc0\x80', 'latin1'), '\\\\xc0\\\\x80'],
  [Buffer.from('\xed\xa0\x80', 'latin1'), '\\\\xed\\\\xa0\\\\x80'],
  [Buffer.from('\xf4\x90\x80\x80', 'latin1'), '\\\\xf4\\\\x90\\\\x80\\\\x80'],
  [Buffer.from('\xe2\x82t', 'latin1'), '\\\\xe2\\\\x82t'],
]

test('quoteName() writes names as Go does', () => {
  for (const [name, quoted] of names) assert.equal(quoteName(name), quoted)
})

test('unquoteName() reverses quoteName() for any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const inner: unknown = JSON.parse(`"${quoteName(Buffer.from(bytes))}"`)
      assert.deepEqual(unquoteName(String(inner)), Buffer.from(bytes))
    }),
    { seed: 1, numRuns: 2000 },
  )
})

test('unquoteName() refuses what Go would not have written', () => {
  for (const text of [
    'a"b',
    'a\nb',
    '\\',
    '\\q',
    '\\x4',
    '\\ud800',
    '\\U00110000',
    "\\'",
    '\\777',
  ]) {
    assert.equal(unquoteName(text), undefined, text)
  }
  assert.deepEqual(unquoteName('\\101\\a\\v'), Buffer.from('A\x07\v'))
})

test('escapeJson() escapes markup, line separators and controls as Go does', () => {
  assert.equal(
    escapeJson('a<b>&"\\\u2028\u2029\b\f\n\r\t\u0001'),
    'a\\u003cb\\u003e\\u0026\\"\\\\\\u2028\\u2029\\b\\f\\n\\r\\t\\u0001',
  )
  assert.equal(escapeJson('\u007f\u0085 plain ü'), '\u007f\u0085 plain ü')
  assert.equal(escapeJson('half \ud800'), 'half \ufffd')
})

test('escapeJsonBytes() tells bytes that are no UTF-8', () => {
  assert.deepEqual(escapeJsonBytes(Buffer.from('tar\xff<get', 'latin1')), {
    text: 'tar\\ufffd\\u003cget',
    exact: false,
  })
  assert.deepEqual(escapeJsonBytes(Buffer.from('ütf')), { text: 'ütf', exact: true })
})

const times: readonly (readonly [bigint, string])[] = [
  [0n, '1970-01-01T00:00:00Z'],
  [1n, '1970-01-01T00:00:00.000000001Z'],
  [-1n, '1969-12-31T23:59:59.999999999Z'],
  [1_500_000_000_120_000_000n, '2017-07-14T02:40:00.12Z'],
  [-62_135_596_800_000_000_000n, '0001-01-01T00:00:00Z'],
]

test('formatTimeNs() and parseTimeNs() agree, to the nanosecond', () => {
  for (const [ns, text] of times) {
    assert.equal(formatTimeNs(ns), text)
    assert.equal(parseTimeNs(text), ns)
  }
  assert.equal(parseTimeNs('2017-07-14T04:40:00.12+02:00'), 1_500_000_000_120_000_000n)
  assert.equal(parseTimeNs('2017-07-13T21:10:00.12-05:30'), 1_500_000_000_120_000_000n)
  for (const text of ['', '2017-07-14', '2017-13-14T00:00:00Z', '2017-07-14T02:40:00', 'x']) {
    assert.equal(parseTimeNs(text), undefined, text)
  }
})

test('formatTimeNs() clamps years to what RFC 3339 can tell', () => {
  assert.equal(formatTimeNs(400_000_000_000n * 1_000_000_000n).slice(0, 4), '9999')
  assert.equal(formatTimeNs(-100_000_000_000n * 1_000_000_000n).slice(0, 4), '0000')
})
