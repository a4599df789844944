import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Catalog, Table } from './catalog.ts'
import { choosePinned } from './pins.ts'

const mebibyte = 1024 * 1024

function table(name: string, sizeBytes: number, engine = 'InnoDB'): Table {
  return {
    database: 'd',
    name,
    engine,
    create: '',
    columns: [],
    key: [],
    keyHead: undefined,
    rowsGuess: 0,
    sizeBytes,
    versioned: false,
    createdAt: '',
  }
}

function choose(tables: readonly Table[], ages: Record<string, number> = {}): string[] {
  const catalog: Catalog = { databases: [], tables, sequences: [], views: [], programs: [] }
  return choosePinned(catalog, new Map(Object.entries(ages))).map(({ name }) => name)
}

test('choosePinned() takes all of a small database, the smallest first', () => {
  const tables = [table('b', 2 * mebibyte), table('a', mebibyte), table('m', 1, 'MyISAM')]
  assert.deepEqual(choose(tables), ['a', 'b'])
})

test('choosePinned() takes what was changed last of a large one, as far as it fits', () => {
  const tables = [
    table('old', mebibyte),
    table('huge', 100 * mebibyte),
    table('staging', 50 * mebibyte),
    table('next', 20 * mebibyte),
  ]
  const ages = { 'd/huge': 9, 'd/staging': 8, 'd/next': 7, 'd/old': 1 }
  assert.deepEqual(choose(tables, ages), ['staging', 'old'])
  const many = Array.from({ length: 400 }, (_, n) => table(`t${n}`, 1))
  assert.equal(choose(many).length, 256)
  assert.equal(choose(many, { 'd/t399': 5 })[0], 't399')
})
