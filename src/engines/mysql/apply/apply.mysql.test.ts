import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Follow } from '../../../../test/support/mysql-apply.ts'
import { positionOf } from '../../../../test/support/mysql-mirror.ts'
import { mysqlVersion, startMysql } from '../../../../test/support/servers/mysql.ts'
import { applyTests, compare, randomLoad } from './apply.suite.ts'

const newer = mysqlVersion() !== '5.6'
applyTests(startMysql, { names: newer, patches: newer })

if (newer)
  test('foreign keys of a source that cascades by itself do so on the target', async () => {
    const settings = { 'loose-innodb-native-foreign-keys': 'ON' }
    await using source = await startMysql({ settings })
    await using target = await startMysql({ settings })
    const after = await positionOf(source)
    await randomLoad(source)
    await using follow = await Follow.open(source, target, after, { together: 5 })
    await follow.catchUp()
    assert.equal(await compare(source, target), 6)
  })
