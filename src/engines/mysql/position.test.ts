import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { cutNumbers } from './chunks.ts'
import { parseFlavor } from './flavor.ts'
import { pathName } from './layout.ts'
import { fileNumber, formatPlace, parsePlace } from './position.ts'
import { parseEndpoint } from './protocol/endpoint.ts'

test('places sort as text', () => {
  const places = [
    { file: 1, offset: 0 },
    { file: 1, offset: 4, stamp: 9 },
    { file: 1, offset: 1_000_000_000_00, stamp: 9 },
    { file: 2, offset: 0 },
    { file: 999_999, offset: 17, stamp: 0xffffffff },
    { file: 1_000_000, offset: 0 },
  ]
  const texts = places.map(formatPlace)
  assert.deepEqual(texts.toSorted(), texts)
  assert.deepEqual(
    texts.map(parsePlace),
    places.map((place) => ({ stamp: undefined, ...place })),
  )
  assert.throws(
    () => parsePlace('0/16B3740'),
    (error) => isFault(error, 'usage'),
  )
  assert.equal(fileNumber('mysql-bin.log.000123'), 123)
})

test('versions tell what a server can do', () => {
  const old = parseFlavor('5.6.24-log')
  assert.deepEqual([old.family, old.number, old.logStatus], ['mysql', 50_624, 'SHOW MASTER STATUS'])
  const maria = parseFlavor('5.5.5-10.11.18-MariaDB-0+deb12u1-log')
  assert.deepEqual([maria.family, maria.number, maria.backupStages], ['mariadb', 101_118, true])
  const now = parseFlavor('9.7.4-2')
  assert.deepEqual([now.cascadesLogged, now.logStatus], [true, 'SHOW BINARY LOG STATUS'])
  assert.equal(parseFlavor('9.5.0').cascadesLogged, false)
})

test('borders stay where they are while a table grows', () => {
  const before = cutNumbers(1n, 1_000_000n, 1_000_000, 100_000)
  const after = cutNumbers(1n, 1_100_000n, 1_100_000, 100_000)
  assert.ok(before.length > 8)
  assert.deepEqual(after.slice(0, before.length - 1), before.slice(0, -1))
  assert.deepEqual([before[0]?.from, before.at(-1)?.to], [undefined, undefined])
  // Sparse and negative keys, and a range that no counter could walk.
  assert.ok(cutNumbers(-5n, 2n ** 63n, 10, 1).length <= 100_001)
  assert.deepEqual(cutNumbers(7n, 7n, 1, 10), [{ index: 0, from: undefined, to: undefined }])
})

test('any name is one harmless component of a path', () => {
  assert.equal(pathName('plain_1-$'), 'plain_1-$')
  assert.equal(pathName('../ü'), '%2e%2e%2f%c3%bc')
  const long = pathName('ü'.repeat(64))
  assert.ok(long.length <= 120)
  assert.notEqual(long, pathName(`${'ü'.repeat(63)}o`))
})

test('URLs are read, and errors tell no secrets', () => {
  const endpoint = parseEndpoint('mysql://u%40x:p%3Aw@db.example:3307/?ssl-mode=VERIFY_CA')
  assert.deepEqual(
    [endpoint.user, endpoint.password, endpoint.port, endpoint.tls],
    ['u@x', 'p:w', 3307, 'verify-ca'],
  )
  assert.equal(endpoint.shown, 'mysql://db.example:3307')
  assert.equal(parseEndpoint('mariadb://127.0.0.1').tls, 'disabled')
  for (const bad of [
    'mysql://u:secret@h/?ssl-mode=maybe',
    'mysql://u:secret@h/?x=1',
    'mysql://u:secret@:x',
  ]) {
    assert.throws(
      () => parseEndpoint(bad),
      (error) => isFault(error, 'usage') && !error.message.includes('secret'),
    )
  }
})
