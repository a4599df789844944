import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { IdSet } from './id-set.ts'

const idOf = (number: number) => createHash('sha256').update(`${number}`).digest('hex')

test('IdSet knows what was added, in the order of arrival, once', () => {
  const set = new IdSet()
  for (let number = 0; number < 5000; number++) assert.equal(set.add(idOf(number)), true)
  for (let number = 0; number < 5000; number++) {
    assert.equal(set.add(idOf(number)), false)
    assert.equal(set.numberOf(idOf(number)), number)
  }
  assert.equal(set.has(idOf(5000)), false)
  assert.equal(set.numberOf(idOf(5000)), -1)
  assert.equal(set.count, 5000)
  assert.deepEqual([...set].slice(0, 2), [idOf(0), idOf(1)])
})

test('IdSet tells ids apart that share the word that is hashed', () => {
  const set = new IdSet()
  const ids = ['00', '01', 'ff'].map((end) => `${'ab'.repeat(31)}${end}`)
  for (const id of ids) assert.equal(set.add(id), true)
  assert.deepEqual([...set], ids)
})
