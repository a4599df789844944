import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { ddlLoadTests, lockedTableTests } from './ddl-load.suite.ts'

ddlLoadTests(startMariadb, true)
lockedTableTests(startMariadb)
