import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judge, type Meaning } from './statements.ts'
import { selectTables } from './targets.ts'
import { isFault } from '#base/faults'

const table: readonly (readonly [string, Meaning])[] = [
  ['alter table t add column x int', 'apply'],
  ['ALTER TABLE `d`.`t` DROP COLUMN y', 'apply'],
  ['truncate t', 'apply'],
  ['create index i on t (a)', 'apply'],
  ['/* app */ create table if not exists d.t (a int)', 'apply'],
  ['alter table other add column t int', 'none'],
  ['alter table e.t add column x int', 'none'],
  ['create user x', 'none'],
  ['grant select on d.t to x', 'none'],
  ['create table u as select 1', 'none'],
  ['BEGIN', 'apply'],
  ['alter table t rename to s', 'unknown'],
  ['rename table t to old, new to t', 'unknown'],
  ['drop table a, t', 'unknown'],
  ['insert into `t` values (1)', 'unknown'],
  ['drop database d', 'unknown'],
  ['drop database e', 'none'],
  ['create trigger x before insert on t for each row set @a = 1', 'unknown'],
  ['alter table t exchange partition p with table s', 'unknown'],
  ['/*!50003 alter table t add a int */', 'apply'],
]

for (const [sql, meaning] of table) {
  test(`with only d.t wanted, "${sql}" means ${meaning}`, () => {
    assert.equal(judge(Buffer.from(sql), 'd', selectTables(['d.t'])), meaning)
  })
}

test('patterns choose tables', () => {
  const some = selectTables(['shop.order*', 'logs', '`a.b`.`c d`'])
  assert.equal(some.accepts('shop', 'orders'), true)
  assert.equal(some.accepts('shop', 'users'), false)
  assert.equal(some.accepts('logs', 'anything'), true)
  assert.equal(some.accepts('a.b', 'c d'), true)
  assert.equal(some.accepts('SHOP', 'orders'), false)
  assert.throws(
    () => selectTables(['a.b.c']),
    (error) => isFault(error, 'usage'),
  )
})
