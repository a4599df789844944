import { askMysql, startMysql } from '../../../test/support/servers/mysql.ts'
import { noStrictTests, strictTests } from './strict.suite.ts'

const { semiSync } = await askMysql()
if (semiSync) strictTests(startMysql, semiSync)
else noStrictTests(startMysql)
