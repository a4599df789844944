import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { logTests } from './log.suite.ts'

logTests(startMariadb)
