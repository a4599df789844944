import { startMysql } from '../../../test/support/servers/mysql.ts'
import { chunkTests } from './chunks.suite.ts'

chunkTests(startMysql)
