import { mysqlVersion, startMysql } from '../../../test/support/servers/mysql.ts'
import { ddlLoadTests, lockedTableTests } from './ddl-load.suite.ts'

// LOCK INSTANCE FOR BACKUP came with 8.0: it keeps schema changes away, and waits for no table.
const old = mysqlVersion() === '5.6'
ddlLoadTests(startMysql, !old)
if (old) lockedTableTests(startMysql)
