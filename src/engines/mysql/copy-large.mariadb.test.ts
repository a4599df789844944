import assert from 'node:assert/strict'
import { test } from 'node:test'
import { carry } from '../../../test/support/mysql-carry.ts'
import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'

const settings = { 'max-allowed-packet': '1G', 'innodb-log-file-size': '600M' }

test('a value of 250 MB goes from server to server', async () => {
  await using server = await startMariadb({ settings })
  await server.query('create database d; create table d.t (id int primary key, v longblob)')
  // Every byte there is, so that some need their escape.
  await server.query(
    `insert into d.t select 1, repeat(group_concat(char(seq) order by seq separator ''), 1000000) from d.seq_0_to_255`,
  )
  await using target = await startMariadb({ settings: { 'innodb-log-file-size': '600M' } })
  await carry(server.url, target.url)
  assert.deepEqual(await sums(target), await sums(server))
})

async function sums(server: FamilyServer): Promise<unknown> {
  return server.query('select id, length(v) as size, md5(v) as sum from d.t order by id')
}
