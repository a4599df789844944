import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { restoreTests } from './restore.suite.ts'

restoreTests(startMariadb)
