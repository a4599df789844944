import { startMariadb } from '../../../../test/support/servers/mariadb.ts'
import { ownershipTests } from './ownership.suite.ts'

ownershipTests(startMariadb)
