import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGtidSet, isGtid } from './gtid.ts'

const a = '11111111-1111-1111-1111-111111111111'
const b = '22222222-2222-2222-2222-222222222222'

test('a MySQL set joins neighbours, keeps holes, and knows tags apart', () => {
  const set = createGtidSet('mysql', `${a}:1-5:8,\n${b}:3`)
  set.add(`${a}:7`)
  assert.equal(set.toString(), `${a}:1-5:7-8,${b}:3`)
  set.add(`${a}:6`)
  assert.equal(set.toString(), `${a}:1-8,${b}:3`)
  assert.equal(set.has(`${a}:8`), true)
  assert.equal(set.has(`${a}:9`), false)
  set.add(`${a}:tag_1:1`)
  assert.equal(set.has(`${a}:tag_1:1`), true)
  assert.equal(set.has(`${a}:tag_1:2`), false)
  const tagged = createGtidSet('mysql', `${a}:1-2:tag_1:4-5`)
  assert.equal(tagged.has(`${a}:tag_1:5`), true)
  assert.equal(tagged.has(`${a}:5`), false)
})

test('a set covers another when nothing of it is missing', () => {
  const all = createGtidSet('mysql', `${a}:1-10,${b}:1`)
  assert.equal(all.covers(createGtidSet('mysql', `${a}:2-9`)), true)
  assert.equal(all.covers(createGtidSet('mysql', `${a}:2-11`)), false)
  assert.equal(all.covers(createGtidSet('mysql')), true)
  assert.equal(createGtidSet('mysql').empty, true)
})

test('a MariaDB set keeps the last number of each domain, whoever gave it', () => {
  const set = createGtidSet('mariadb', '0-1-5,1-7-2')
  set.add('0-2-6')
  set.add('0-1-3')
  assert.equal(set.toString(), '0-2-6,1-7-2')
  assert.equal(set.has('0-1-4'), true)
  assert.equal(set.has('0-1-7'), false)
  assert.equal(set.covers(createGtidSet('mariadb', '0-1-5')), true)
  // The same number by another server: the two histories part there.
  assert.equal(set.covers(createGtidSet('mariadb', '0-9-6')), false)
})

test('texts that name one transaction are told from others', () => {
  for (const text of [`${a}:1`, `${a}:tag:77`, '0-1-2']) assert.equal(isGtid(text), true, text)
  for (const text of [a, `${a}:1-2`, '0-1', 'binlog.000001:4', '2026-01-01', '']) {
    assert.equal(isGtid(text), false, text)
  }
})
