import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { Follow } from '../../../../test/support/mysql-apply.ts'
import { positionOf } from '../../../../test/support/mysql-mirror.ts'
import { startMariadb } from '../../../../test/support/servers/mariadb.ts'
import type { FamilyServer } from '../../../../test/support/servers/mysql-family.ts'
import { startMysql } from '../../../../test/support/servers/mysql.ts'
import { randomLoad } from './apply.suite.ts'

test('a database whose collation the target does not have is not made with another', async () => {
  await using source = await startMysql()
  await using target = await startMariadb()
  const after = await positionOf(source)
  await source.query('create database d')
  await using follow = await Follow.open(source, target, after)
  const refused = await follow.catchUp().catch((error: unknown) => error)
  assert.ok(isFault(refused, 'unsupported'), String(refused))
})

test('changes of either family are applied to the other', async () => {
  await using mariadb = await startMariadb()
  await using mysql = await startMysql()
  for (const [source, target] of [
    [mariadb, mysql],
    [mysql, mariadb],
  ] as const) {
    await target.query('drop database if exists d')
    await source.query('drop database if exists d')
    const after = await positionOf(source)
    await source.query('create database d character set utf8mb4 collate utf8mb4_unicode_ci')
    await randomLoad(source, 60)
    await using follow = await Follow.open(source, target, after, { together: 4 })
    await follow.catchUp()
    for (const table of ['keyed', 'two', 'bare', 'uniques', 'parent', 'child']) {
      assert.deepEqual(await rowsOf(target, table), await rowsOf(source, table), table)
    }
  }
})

async function rowsOf(server: FamilyServer, table: string): Promise<string[]> {
  const rows = await server.query(`select * from d.${table}`)
  return rows.map((row) => JSON.stringify(row)).toSorted()
}
