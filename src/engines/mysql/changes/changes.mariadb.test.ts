import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Mirror, positionOf, readAll } from '../../../../test/support/mysql-mirror.ts'
import { startMariadb } from '../../../../test/support/servers/mariadb.ts'
import { changesTests } from './changes.suite.ts'

changesTests(startMariadb, {
  names: true,
  prepares: true,
  patches: false,
  makesAndFills: true,
  compressed: { events: { 'log-bin-compress': 'ON', 'log-bin-compress-min-len': '10' } },
})

test('compressed columns are read', async () => {
  await using server = await startMariadb()
  await server.query('create database d')
  const after = await positionOf(server)
  await server.query(
    `create table d.t (id int primary key, v varchar(1000) compressed, l varchar(100) character set latin1 compressed, b longblob compressed, x text compressed);
     insert into d.t values (1, repeat('text ü ', 100), 'é', repeat(0x00ff, 40000), repeat('x', 2000)), (2, 'short', '', '', null), (3, null, null, null, '');
     set session column_compression_zlib_wrap = on; insert into d.t values (4, repeat('wrapped', 90), 'é', repeat(0x00ff, 40), 'y')`,
  )
  const mirror = new Mirror()
  for (const batch of await readAll(server, { after })) mirror.take(batch)
  assert.equal(await mirror.compare(server), 4)
})
