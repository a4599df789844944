import { startMysql } from '../../../../test/support/servers/mysql.ts'
import { ownershipTests } from './ownership.suite.ts'

ownershipTests(startMysql)
