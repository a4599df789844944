import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { baseTests } from './base.suite.ts'

baseTests(startMariadb)
