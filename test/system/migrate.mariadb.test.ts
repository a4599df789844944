import { migrateFamilyTests } from '../support/migrate-family.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

migrateFamilyTests(startMariadb)
