import { startMariadb } from '../support/servers/mariadb.ts'
import { verifyFamilyTests } from '../support/verify-family.ts'

verifyFamilyTests(startMariadb)
