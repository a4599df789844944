import { askMysql, startMysql } from '../../../test/support/servers/mysql.ts'
import { restoreTests, restoreWithoutScratchTests, scratchTests } from './restore.suite.ts'

restoreTests(startMysql)
// MySQL 5.6 makes its system tables by a script that its package does not hold.
const { options } = await askMysql()
if (options.has('initialize-insecure')) scratchTests(startMysql)
else restoreWithoutScratchTests(startMysql)
