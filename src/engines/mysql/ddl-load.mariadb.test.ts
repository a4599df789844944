import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { ddlLoadTests, lockedTableTests, stagingTests } from './ddl-load.suite.ts'

ddlLoadTests(startMariadb, true)
stagingTests(startMariadb)
lockedTableTests(startMariadb)
