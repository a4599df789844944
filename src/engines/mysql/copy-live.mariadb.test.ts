import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { copyLiveTests } from './copy-live.suite.ts'

copyLiveTests(startMariadb)
