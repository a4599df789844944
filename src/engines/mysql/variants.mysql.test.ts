import { test } from 'node:test'
import { rootPassword } from '../../../test/support/servers/mysql-family.ts'
import { askMysql, startMysql } from '../../../test/support/servers/mysql.ts'
import { failoverTests, fitTo, restoreBetween, variantTests } from './variants.suite.ts'

const { options, version } = await askMysql()
const old = version === '5.6'

variantTests(
  startMysql,
  [
    { 'binlog-transaction-compression': 'ON' },
    { 'binlog-checksum': 'NONE', 'gtid-mode': 'OFF', 'enforce-gtid-consistency': 'OFF' },
    { 'binlog-row-image': 'MINIMAL', 'binlog-row-value-options': 'PARTIAL_JSON' },
  ],
  fitTo(options),
)

test('servers that run with another sql_mode are restored, base and log', async () => {
  const settings = { 'sql-mode': 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT' }
  await restoreBetween(() => startMysql({ settings }))
})

failoverTests(
  startMysql,
  async (source, replica) => {
    await replica.query(
      old
        ? `change master to master_host = '127.0.0.1', master_port = ${source.port}, master_user = 'root',
           master_password = '${rootPassword}', master_auto_position = 1; start slave`
        : `change replication source to source_host = '127.0.0.1', source_port = ${source.port}, source_user = 'root',
           source_password = '${rootPassword}', source_auto_position = 1, get_source_public_key = 1; start replica`,
    )
  },
  async (replica) =>
    void (await replica.query(
      old ? 'stop slave; reset slave all' : 'stop replica; reset replica all',
    )),
  {},
)
