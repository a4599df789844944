import { changesFamilyTests } from '../support/changes-family.ts'
import { startMysql } from '../support/servers/mysql.ts'

changesFamilyTests(startMysql)
