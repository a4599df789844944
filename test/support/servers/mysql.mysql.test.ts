import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mysqlVersion, startMysql } from './mysql.ts'

test('a private MySQL keeps what was committed through kill -9 and restart', async () => {
  await using server = await startMysql()
  const facts = 'select version() as v, @@gtid_mode as gtid, @@binlog_format as format'
  const [row] = await server.query<{ v: string; gtid: string; format: string }>(facts)
  assert.ok(row?.v.startsWith(mysqlVersion()), row?.v)
  assert.deepEqual([row?.gtid, row?.format], ['ON', 'ROW'])
  await server.query('create database d; create table d.t (a int) engine=innodb')
  await server.query('insert into d.t values (?)', [1])
  await server.kill9()
  await server.start()
  await server.restart({ 'max-connections': '17' })
  assert.deepEqual(await server.query('select a from t', [], 'd'), [{ a: 1 }])
  assert.deepEqual(await server.query('select @@max_connections as m'), [{ m: 17 }])
})
