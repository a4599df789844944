import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { strictTests } from './strict.suite.ts'

strictTests(startMariadb, 'master')
