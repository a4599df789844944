import { startMysql } from '../../../test/support/servers/mysql.ts'
import { restoreTests } from './restore.suite.ts'

restoreTests(startMysql)
