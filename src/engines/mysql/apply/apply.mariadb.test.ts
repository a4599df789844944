import { startMariadb } from '../../../../test/support/servers/mariadb.ts'
import { applyTests } from './apply.suite.ts'

applyTests(startMariadb, { names: true, patches: false })
