import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { startMysql } from '../../../test/support/servers/mysql.ts'
import { betweenTest } from './copy-between.suite.ts'

const [old, late] = [
  () => startMariadb({ version: '10.11' }),
  () => startMariadb({ version: '11.8' }),
]
const [mysql5, mysql9] = [
  () => startMysql({ version: '5.6' }),
  () => startMysql({ version: '9.7' }),
]

betweenTest('MariaDB 10.11 to 11.8', { from: old, to: late, blocks: [] })
betweenTest('MariaDB 11.8 to 10.11', { from: late, to: old, blocks: ['vector', 'vector-index'] })
betweenTest('MySQL 9.7 to MariaDB 11.8', { from: mysql9, to: late, blocks: ['functional-index'] })
betweenTest('MySQL 9.7 to MariaDB 10.11', {
  from: mysql9,
  to: old,
  blocks: ['functional-index', 'vector'],
})
betweenTest('MariaDB 10.11 to MySQL 9.7', {
  from: old,
  to: mysql9,
  blocks: ['sequence', 'system-versioning'],
})
betweenTest('MariaDB 11.8 to MySQL 9.7', {
  from: late,
  to: mysql9,
  blocks: ['sequence', 'system-versioning', 'vector-index'],
})
betweenTest('MySQL 5.6 to 9.7', { from: mysql5, to: mysql9, blocks: [] })
betweenTest('MySQL 5.6 to MariaDB 11.8', { from: mysql5, to: late, blocks: [] })
betweenTest('MySQL 9.7 to 5.6', {
  from: mysql9,
  to: mysql5,
  blocks: [
    'check',
    'expression-default',
    'functional-index',
    'generated-column',
    'json',
    'spatial-index',
    'vector',
  ],
})
