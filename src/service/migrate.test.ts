import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { endOf, parsePhases } from './migrate.ts'

test('endOf() names a server and its database, and never a login or a secret', () => {
  const cases: readonly [string, string][] = [
    ['mysql://u:p%40ss@DB.example:3306/', 'mysql://db.example:3306'],
    ['mysql://db.example', 'mysql://db.example'],
    ['postgres://u:p@h:1,h2:2/Shop?sslmode=require', 'postgres://h:1,h2:2/Shop'],
    ['postgres://u@/shop?host=/run/a&password=x', 'postgres:///shop?host=/run/a'],
    ['mysql://u:p@/?socket=/run/b&ssl-mode=disabled', 'mysql://?socket=/run/b'],
  ]
  for (const [url, end] of cases) assert.equal(endOf(url), end, url)
  for (const url of ['u:secret@h', '/var/lib', '']) {
    const hides = (error: unknown) => isFault(error, 'usage') && !/secret/.test(error.message)
    assert.throws(() => endOf(url), hides, url)
  }
})

test('parsePhases() reads what is there, and names what comes later', () => {
  assert.deepEqual(parsePhases('schema'), ['schema'])
  assert.deepEqual(parsePhases('copy'), ['copy'])
  assert.deepEqual(parsePhases('schema, copy'), ['schema', 'copy'])
  assert.deepEqual(parsePhases('copy,schema'), ['schema', 'copy'])
  assert.deepEqual(parsePhases('copy,changes'), ['copy', 'changes'])
  assert.deepEqual(parsePhases('changes,schema,copy'), ['schema', 'copy', 'changes'])
  for (const text of [
    '',
    ',',
    'rows',
    'schema,rows',
    'schema,schema',
    'Schema',
    'copy,',
    'changes',
  ]) {
    assert.throws(
      () => parsePhases(text),
      (error) => isFault(error, 'usage'),
      text,
    )
  }
  for (const text of ['verify', 'schema,copy,cutover']) {
    assert.throws(
      () => parsePhases(text),
      (error) => isFault(error, 'unsupported'),
      text,
    )
  }
})
