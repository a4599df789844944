import { changesFamilyTests } from '../support/changes-family.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

changesFamilyTests(startMariadb)
