import { mysqlVersion, startMysql } from '../../../../test/support/servers/mysql.ts'
import { changesTests } from './changes.suite.ts'

const newer = mysqlVersion() !== '5.6'
changesTests(startMysql, {
  names: newer,
  prepares: newer,
  patches: newer,
  makesAndFills: newer,
  compressed: newer ? { transactions: { 'binlog-transaction-compression': 'ON' } } : {},
})
