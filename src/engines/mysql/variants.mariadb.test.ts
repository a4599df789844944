import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import {
  Capture,
  checksums,
  requestOf,
  takeBase,
} from '../../../test/support/mysql-family-harness.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { rootPassword } from '../../../test/support/servers/mysql-family.ts'
import { mysql } from './mysql.ts'
import { failoverTests, restoreBetween, variantTests } from './variants.suite.ts'

variantTests(startMariadb, [
  { 'log-bin-compress': 'ON', 'log-bin-compress-min-len': '10' },
  { 'binlog-checksum': 'NONE', 'binlog-row-image': 'MINIMAL' },
  { 'binlog-format': 'MIXED' },
])

for (const settings of [
  { 'sql-mode': 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT' },
  { 'lower-case-table-names': '1', 'character-set-server': 'latin1', 'init-connect': 'set @x = 1' },
] as const) {
  test(`servers that run with ${Object.keys(settings).join(' ')} are restored, base and log`, async () => {
    await restoreBetween(() => startMariadb({ settings }))
  })
}

test('a log that the server encrypts on its disk is archived as the stock tool reads it', async () => {
  using scratch = new Scratch('keys')
  const keys = scratch.join('keys')
  writeFileSync(keys, '1;770A8A65DA156D24EE2A093277530142\n', { mode: 0o644 })
  const settings = {
    'plugin-load-add': 'file_key_management',
    'file-key-management-filename': keys,
    'encrypt-binlog': 'ON',
  }
  await using server = await startMariadb({ settings })
  await using capture = await Capture.start(server.url)
  await server.query('create database d; create table d.t (id int primary key, v text)')
  using base = await takeBase(capture.engine)
  await server.query(
    `insert into d.t values (1, 'a'); flush binary logs; insert into d.t values (2, 'b')`,
  )
  await capture.caughtUp(server)
  const [name = ''] = capture.archive.names
  const file = scratch.join(name)
  writeFileSync(file, capture.archive.bytes(name), { mode: 0o644 })
  assert.match(server.tool('mariadb-binlog', file), /insert into d\.t|Write_rows/i)
  await using target = await startMariadb()
  await mysql.restore(requestOf(base, capture.archive, target.url))
  assert.deepEqual(await checksums(target), await checksums(server))
})

failoverTests(
  startMariadb,
  async (source, replica) => {
    await replica.query(
      `change master to master_host = '127.0.0.1', master_port = ${source.port}, master_user = 'root',
       master_password = '${rootPassword}', master_use_gtid = slave_pos; start slave`,
    )
  },
  async (replica) => void (await replica.query('stop slave; reset slave all')),
  { 'log-slave-updates': 'ON' },
)
