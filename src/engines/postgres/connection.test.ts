import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { parseAddress } from './connection.ts'
import { slotName } from './slot.ts'

test('parseAddress() reads users, passwords, hosts and socket folders', () => {
  const full = parseAddress('postgres://b%40b:p%3Aw%2F@db.example:6432/my%20db?sslmode=verify-full')
  assert.deepEqual(
    [full.user, full.password, full.hosts, full.database, full.sslMode],
    ['b@b', 'p:w/', [{ host: 'db.example', port: 6432 }], 'my db', 'verify-full'],
  )
  assert.ok(!full.shown.includes('p:w/'))
  const several = parseAddress('postgresql://u@a:1,b,[::1]:3/d')
  assert.deepEqual(several.hosts, [
    { host: 'a', port: 1 },
    { host: 'b', port: 5432 },
    { host: '::1', port: 3 },
  ])
  assert.equal(several.sslMode, 'prefer')
  const socket = parseAddress('postgres://u@:5433/d?host=/run/postgresql')
  assert.deepEqual(socket.hosts, [{ host: '/run/postgresql', port: 5433 }])
  assert.equal(socket.sslMode, 'disable')
})

test('parseAddress() refuses what it does not know, without showing the password', () => {
  for (const url of [
    'mysql://u:secret@h/d',
    'postgres://u:secret@h:x/d',
    'postgres://u:secret@h/d?sslmode=maybe',
    'postgres://u:secret@h/d?colour=red',
    'postgres://u:se%cret@h/d',
  ]) {
    assert.throws(
      () => parseAddress(url),
      (error) => isFault(error, 'usage') && !`${error.message}${error.hint}`.includes('secret'),
      url,
    )
  }
})

test('slotName() keeps plain names, and tells others apart', () => {
  assert.equal(slotName('shop'), 'redoubt_shop')
  const odd = ['Shop', 'sh-op', 'sh op', '🛒', 'x'.repeat(100), 'x'.repeat(101)].map(slotName)
  assert.equal(new Set(odd).size, odd.length)
  for (const name of odd) assert.match(name, /^[a-z0-9_]{1,63}$/)
})
