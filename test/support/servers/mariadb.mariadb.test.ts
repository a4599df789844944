import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mariadbVersion, startMariadb } from './mariadb.ts'

test('a private MariaDB keeps what was committed through kill -9 and restart', async () => {
  await using server = await startMariadb()
  const [row] = await server.query<{ v: string }>('select version() as v')
  assert.ok(row?.v.startsWith(mariadbVersion()), row?.v)
  await server.query('create database d; create table d.t (a int) engine=innodb')
  await server.query('insert into d.t values (?)', [1])
  await server.kill9()
  assert.equal(server.running, false)
  await server.start()
  await server.restart({ 'max-connections': '17' })
  assert.deepEqual(await server.query('select a from t', [], 'd'), [{ a: 1 }])
  assert.deepEqual(await server.query('select @@max_connections as m'), [{ m: 17 }])
  assert.match(server.tool('mariadb', ...server.clientArgs, '-Ne', 'show databases'), /^d$/m)
})

test('a bad setting is reported with what the server said', async () => {
  await assert.rejects(startMariadb({ settings: { 'no-such-thing': '1' } }), /no-such-thing/)
})
