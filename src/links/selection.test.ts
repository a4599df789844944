import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { type Choices, createSelection, formatName, parseMap } from './selection.ts'

const all: Choices = { include: [], exclude: [], map: '', accounts: false, convert: false }

function accepts(choices: Partial<Choices>, ...name: readonly string[]): boolean {
  return createSelection({ ...all, ...choices }).accepts(name)
}

test('patterns take in names part by part', () => {
  const lines = [
    [{}, ['shop', 'orders'], true],
    [{ include: ['shop.*'] }, ['shop', 'orders'], true],
    [{ include: ['shop'] }, ['shop', 'orders'], true],
    [{ include: ['shop.orders'] }, ['shop', 'lines'], false],
    [{ include: ['shop.orders'] }, ['shop', 'orders', 'by_day'], true],
    [{ include: ['*.o*s'] }, ['other', 'orders'], true],
    [{ include: ['shop.orders'] }, ['Shop', 'orders'], false],
    [{ include: ['sh.p'] }, ['shop', 'p'], false],
    [{ exclude: ['shop.log_*'] }, ['shop', 'log_2026'], false],
    [{ exclude: ['shop.log_*'] }, ['shop', 'logs'], true],
    [{ include: ['shop'], exclude: ['shop.lines'] }, ['shop', 'lines'], false],
    [{ include: ['"a.b"."x*"'] }, ['a.b', 'x*'], true],
    [{ include: ['"a.b"."x*"'] }, ['a.b', 'xy'], false],
    [{ include: ['shop."or""ders 🍊"'] }, ['shop', 'or"ders 🍊'], true],
  ] as const
  for (const [choices, name, expected] of lines) {
    assert.equal(accepts(choices, ...name), expected, JSON.stringify([choices, name]))
  }
})

test('a database is made for the tables in it, and left out only when all of it is', () => {
  assert.equal(accepts({ include: ['shop.orders'] }, 'shop'), true)
  assert.equal(accepts({ include: ['shop.orders'] }, 'other'), false)
  assert.equal(accepts({ exclude: ['shop.orders'] }, 'shop'), true)
  assert.equal(accepts({ exclude: ['shop'] }, 'shop'), false)
  assert.equal(accepts({ exclude: ['shop.*'] }, 'shop'), false)
})

test('a map renames databases and tables, the table first', () => {
  const map = '# names\n\nshop = store\r\nshop.orders = "my sales"."all=2"\n"a=b".c = d.e\n'
  const selection = createSelection({ ...all, map })
  const rename = (name: readonly string[]) => selection.map(name)
  assert.deepEqual(rename(['shop']), ['store'])
  assert.deepEqual(rename(['shop', 'lines']), ['store', 'lines'])
  assert.deepEqual(rename(['shop', 'orders']), ['my sales', 'all=2'])
  assert.deepEqual(rename(['shop', 'orders', 'by_day']), ['my sales', 'all=2', 'by_day'])
  assert.deepEqual(rename(['a=b', 'c']), ['d', 'e'])
  assert.deepEqual(rename(['other', 'orders']), ['other', 'orders'])
})

test('what is no pattern and no map is refused, with the line', () => {
  for (const include of ['', '.', 'a.', '.b', 'a.b.c', 'a"b', '"a', '""', '"".b']) {
    assert.throws(() => createSelection({ ...all, include: [include] }), isUsage, include)
  }
  const maps = [
    'shop',
    'shop =',
    '= shop',
    'a.b = c',
    'a = b.c',
    'a.* = b.*',
    'a = b = c',
    'a.b.c = d.e.f',
  ]
  for (const map of maps) assert.throws(() => parseMap(map), isUsage, map)
  assert.throws(() => parseMap('\na = b\na = c'), /line 3: a is renamed twice/)
})

test('a name is written so that it is read again', () => {
  for (const name of [
    ['shop', 'orders'],
    ['a.b', 'x*'],
    ['a"b', ' '],
    ['=', '#'],
  ]) {
    const choices = { ...all, include: [formatName(name)] }
    assert.equal(createSelection(choices).accepts(name), true, formatName(name))
  }
})

function isUsage(error: unknown): boolean {
  return isFault(error, 'usage')
}
