import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { chunkTests } from './chunks.suite.ts'

chunkTests(startMariadb)
