import { mysqlVersion, startMysql } from '../../../../test/support/servers/mysql.ts'
import { applyTests } from './apply.suite.ts'

applyTests(startMysql, { patches: mysqlVersion() !== '5.6' })
