import { migrateFamilyTests } from '../support/migrate-family.ts'
import { startMysql } from '../support/servers/mysql.ts'

migrateFamilyTests(startMysql)
