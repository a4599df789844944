import assert from 'node:assert/strict'
import { test } from 'node:test'
import { postgresVersion, startPostgres } from './postgres.ts'

test('a private PostgreSQL keeps what was committed through kill -9 and restart', async () => {
  await using server = await startPostgres({ settings: { wal_level: 'logical' } })
  const [row] = await server.query<{ server_version: string }>('show server_version')
  assert.equal(row?.server_version.split('.')[0], postgresVersion())
  await server.query('create table t (a int); insert into t values (1)')
  const before = server.pid
  await server.kill9()
  assert.equal(server.running, false)
  await server.start()
  await server.restart({ max_wal_senders: '3' })
  assert.notEqual(server.pid, before)
  assert.deepEqual(await server.query('select a from t'), [{ a: 1 }])
  assert.deepEqual(await server.query('show max_wal_senders'), [{ max_wal_senders: '3' }])
})

test('a bad setting is reported with what the server said', async () => {
  await assert.rejects(startPostgres({ settings: { no_such_thing: '1' } }), /no_such_thing/)
})
