import { startMysql } from '../../../test/support/servers/mysql.ts'
import { copyLiveTests } from './copy-live.suite.ts'

copyLiveTests(startMysql)
