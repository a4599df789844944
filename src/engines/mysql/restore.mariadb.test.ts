import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { restoreTests, scratchTests } from './restore.suite.ts'

restoreTests(startMariadb)
scratchTests(startMariadb)
