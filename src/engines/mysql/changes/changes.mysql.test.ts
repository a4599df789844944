import { startMysql } from '../../../../test/support/servers/mysql.ts'
import { changesTests } from './changes.suite.ts'

changesTests(startMysql)
