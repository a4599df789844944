import { startMariadb } from '../../../../test/support/servers/mariadb.ts'
import { changesTests } from './changes.suite.ts'

changesTests(startMariadb, {
  names: true,
  prepares: true,
  patches: false,
  makesAndFills: true,
  compressed: { events: { 'log-bin-compress': 'ON', 'log-bin-compress-min-len': '10' } },
})
