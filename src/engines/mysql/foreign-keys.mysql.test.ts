import assert from 'node:assert/strict'
import { test } from 'node:test'
import { oddTable } from '../../../test/support/mysql-every-type.ts'
import {
  Capture,
  checksums,
  requestOf,
  takeBase,
} from '../../../test/support/mysql-family-harness.ts'
import { startMysql } from '../../../test/support/servers/mysql.ts'
import { mysql } from './mysql.ts'

for (const native of ['OFF', 'ON']) {
  test(`cascades come back once with innodb_native_foreign_keys ${native}`, async () => {
    // Off: the cascades are events of the log. On: the engine carries them out by itself, here and there.
    await using server = await startMysql({
      settings: { 'loose-innodb-native-foreign-keys': native },
    })
    await using capture = await Capture.start(server.url)
    await server.query('create database d; create table d.p (id int primary key) engine=innodb')
    await server.query(
      'create table d.c (id int primary key, pid int, n int default 0, foreign key (pid) references d.p (id) on delete cascade on update cascade) engine=innodb',
    )
    await server.query(
      'create table d.s (id int primary key, pid int, foreign key (pid) references d.c (id) on delete set null on update cascade) engine=innodb',
    )
    await server.query('insert into d.p values (1), (2), (3), (9)')
    await server.query('insert into d.c (id, pid) values (10, 1), (11, 1), (20, 2), (30, 3)')
    await server.query('insert into d.s values (100, 10), (110, 11), (200, 20), (300, 30)')
    using base = await takeBase(capture.engine)
    await server.query('delete from d.p where id = 1')
    await server.query('update d.p set id = id + 1 where id in (2, 3) order by id desc')
    await server.query('update d.c set id = 21 where id = 20; update d.p set id = 2 where id = 9')
    await capture.caughtUp(server)
    await using target = await startMysql()
    await mysql.restore(requestOf(base, capture.archive, target.url))
    assert.deepEqual(await checksums(target), await checksums(server))
    assert.deepEqual(await target.query('select id, pid from d.c order by id'), [
      { id: 21, pid: 3 },
      { id: 30, pid: 4 },
    ])
    assert.deepEqual(await target.query('select id, pid from d.s order by id'), [
      { id: 100, pid: null },
      { id: 110, pid: null },
      { id: 200, pid: 21 },
      { id: 300, pid: 30 },
    ])
  })
}

test('a child takes rows after a restore, whatever its parent is called', async () => {
  await using server = await startMysql()
  const parent = `\`${oddTable.replaceAll('`', '``')}\``
  await server.query('create database d')
  await server.query(
    `create table ${parent} (id int primary key) engine=innodb; create table c (id int primary key, pid int, foreign key (pid) references ${parent} (id)) engine=innodb`,
    [],
    'd',
  )
  await server.query(`insert into d.${parent} values (1), (2); insert into d.c values (10, 1)`)
  await using capture = await Capture.start(server.url)
  using base = await takeBase(capture.engine)
  await using target = await startMysql()
  await mysql.restore(requestOf(base, undefined, target.url))
  assert.deepEqual(await checksums(target), await checksums(server))
  await target.query('insert into d.c values (20, 2)')
  await assert.rejects(target.query('insert into d.c values (30, 3)'), /foreign key/)
})
