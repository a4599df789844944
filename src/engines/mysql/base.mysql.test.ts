import { startMysql } from '../../../test/support/servers/mysql.ts'
import { baseTests } from './base.suite.ts'

baseTests(startMysql)
