import { startMariadb } from '../../../../test/support/servers/mariadb.ts'
import { changesTests } from './changes.suite.ts'

changesTests(startMariadb)
