import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { requestOf, takeBase } from '../../../test/support/mysql-family-harness.ts'
import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { mysql } from './mysql.ts'

const settings = { 'max-allowed-packet': '1G', 'innodb-log-file-size': '600M' }

test('a value of 256 MB passes through a base', async () => {
  await using server = await startMariadb({ settings })
  await server.query('create database d; create table d.t (id int primary key, v longblob)')
  // Every byte there is, so that some need their escape.
  await server.query(
    `insert into d.t select 1, repeat(group_concat(char(seq) order by seq separator ''), 1000000) from d.seq_0_to_255`,
  )
  const signal = AbortSignal.timeout(600_000)
  await using engine = await mysql.open(server.url, { signal, log: silentLog })
  using base = await takeBase(engine)
  await using target = await startMariadb({ settings })
  await mysql.restore(requestOf(base, undefined, target.url))
  assert.deepEqual(await sums(target), await sums(server))
})

async function sums(server: FamilyServer): Promise<unknown> {
  return server.query('select id, length(v) as size, md5(v) as sum from d.t order by id')
}
