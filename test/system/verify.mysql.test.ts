import { startMysql } from '../support/servers/mysql.ts'
import { verifyFamilyTests } from '../support/verify-family.ts'

verifyFamilyTests(startMysql)
