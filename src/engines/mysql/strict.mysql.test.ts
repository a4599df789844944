import { startMysql } from '../../../test/support/servers/mysql.ts'
import { strictTests } from './strict.suite.ts'

strictTests(startMysql, 'source')
