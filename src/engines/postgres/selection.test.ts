import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { parseSelector } from './selection.ts'

const fits = (pattern: string, database: string, schema: string, table: string) => {
  const selector = parseSelector(pattern)
  return (
    selector.database.test(database) && selector.schema.test(schema) && selector.table.test(table)
  )
}

test('parseSelector() takes stars, quotes and parts left out', () => {
  assert.ok(fits('shop', 'shop', 'public', 'orders'))
  assert.ok(fits('shop.public.ord*', 'shop', 'public', 'orders'))
  assert.ok(fits('*.*.orders', 'shop', 'public', 'orders'))
  assert.ok(fits('"a.b"."c*""d".t', 'a.b', 'c*"d', 't'))
  assert.ok(fits('shop.public', 'shop', 'public', 'line\nbreak'))
  assert.ok(!fits('shop.public.ord', 'shop', 'public', 'orders'))
  assert.ok(!fits('"*".public.t', 'shop', 'public', 't'))
  assert.ok(!fits('s.p.t(x', 's', 'p', 't'))
  assert.equal(parseSelector('shop').whole, true)
  assert.equal(parseSelector('shop.*.*').whole, true)
  assert.equal(parseSelector('shop.public').whole, false)
})

test('parseSelector() refuses what it cannot read', () => {
  for (const pattern of ['', '.', 'a..b', 'a.b.c.d', '"open', '"a"b', 'a.']) {
    assert.throws(
      () => parseSelector(pattern),
      (error) => isFault(error, 'usage'),
      pattern,
    )
  }
})
