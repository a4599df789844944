import { startMysql } from '../../../test/support/servers/mysql.ts'
import { logTests } from './log.suite.ts'

logTests(startMysql)
