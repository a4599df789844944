import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { rootPassword } from '../../../test/support/servers/mysql-family.ts'
import { failoverTests, variantTests } from './variants.suite.ts'

variantTests(startMariadb, [
  { 'log-bin-compress': 'ON', 'log-bin-compress-min-len': '10' },
  { 'binlog-checksum': 'NONE', 'binlog-row-image': 'MINIMAL' },
  { 'binlog-format': 'MIXED' },
])

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
