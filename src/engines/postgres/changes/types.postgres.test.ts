import assert from 'node:assert/strict'
import { test } from 'node:test'
import type pg from 'pg'
import { isFault } from '#base/faults'
import {
  follow,
  over,
  settings,
  transactionsUntilOver,
} from '../../../../test/support/postgres-follow.ts'
import { everyValue, typesBefore } from '../../../../test/support/postgres-every-type.ts'
import { imagesOf } from '../../../../test/support/postgres-mirror.ts'
import { startPostgres } from '../../../../test/support/servers/postgres.ts'

test('changes: the value of every type is what SQL prints, whatever the settings of the server are', async () => {
  await using server = await startPostgres({ settings })
  const types = Object.keys(everyValue)
  const columns = types.map((type, index) => `c${index} ${type}`)
  await server.query(`${over}; ${typesBefore}`)
  await server.query(`create table t (id int primary key, ${columns.join(', ')})`)
  for (const setting of [
    `datestyle = 'German'`,
    `intervalstyle = 'iso_8601'`,
    'extra_float_digits = -3',
    `bytea_output = 'escape'`,
    `timezone = 'Asia/Tokyo'`,
  ]) {
    await server.query(`alter database postgres set ${setting}`)
  }
  const after = await follow(server)
  await using client = await server.connect()
  const plain = `set datestyle = ISO; set intervalstyle = postgres; set extra_float_digits = 3; set bytea_output = hex; set timezone = UTC`
  await client.query(plain)
  const depth = Math.max(...Object.values(everyValue).map((list) => list.length))
  for (let row = 0; row <= depth; row += 1) {
    const cells = types.map((type) => everyValue[type]?.[row] ?? null)
    const places = types.map((type, index) => `$${index + 1}::text::${type}`)
    await client.query(`insert into t values (${row}, ${places.join(', ')})`, cells)
  }
  const all = await transactionsUntilOver(server, { after })
  const runs = all.flatMap((one) => one.changes).filter((change) => 'cells' in change)
  const rows = runs.filter((run) => run.relation.name[1] === 't').flatMap(imagesOf)
  const asIs = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig
  const printed = await client.query<(string | null)[]>({
    text: 'select * from t order by id',
    rowMode: 'array',
    types: asIs,
  })
  assert.equal(rows.length, depth + 1)
  for (const [at, row] of rows.entries()) {
    for (const [index, cell] of row.entries()) {
      assert.equal(cell, printed.rows[at]?.[index], types[index - 1])
    }
  }
  const relation = runs.find((run) => run.relation.name[1] === 't')?.relation
  assert.deepEqual(
    relation?.columns.slice(1).map((column) => column.type),
    types,
  )
})

test('changes: a table whose rows could not be named is refused before it is published', async () => {
  await using server = await startPostgres({ settings })
  await server.query(
    `create table keyless (a int); create table fine (a int primary key); create unlogged table light (a int)`,
  )
  await assert.rejects(
    follow(server),
    (error) =>
      isFault(error, 'refused') &&
      /"public"\."keyless":/.test(error.message.replace(': they', ':')),
  )
  await server.query(
    `insert into keyless values (1); update keyless set a = 2; alter table keyless replica identity full`,
  )
  await follow(server)
  const published = await server.query<{ tablename: string }>(
    `select tablename from pg_publication_tables order by 1`,
  )
  assert.deepEqual(
    published.map((row) => row.tablename),
    ['fine', 'keyless'],
  )
})

test('changes: a table that changes its form comes as another relation, and in step with its rows', async () => {
  await using server = await startPostgres({ settings })
  await server.query(`${over}; create table t (id int primary key, a text)`)
  const after = await follow(server)
  await server.query(`insert into t values (1, 'x')`)
  await server.query(
    `insert into t values (2, 'y'); alter table t add b int default 7; insert into t values (3, 'z'); alter table t drop a`,
  )
  await server.query(
    `alter table t rename b to "B c"; alter table t rename to "T 2"; insert into "T 2" values (4, 8); alter table "T 2" alter id type bigint; update "T 2" set id = 5 where id = 4`,
  )
  const all = await transactionsUntilOver(server, { after })
  const runs = all.flatMap((one) => one.changes).filter((change) => 'cells' in change)
  const told = runs.slice(0, -1).map((run) => {
    const form = run.relation.columns.map((column) => `${column.name} ${column.type}`)
    return [run.relation.name[1], form.join(), JSON.stringify(imagesOf(run))]
  })
  assert.deepEqual(told, [
    ['t', 'id integer,a text', '[["1","x"]]'],
    ['t', 'id integer,a text', '[["2","y"]]'],
    ['t', 'id integer,a text,b integer', '[["3","z","7"]]'],
    ['T 2', 'id integer,B c integer', '[["4","8"]]'],
    ['T 2', 'id bigint,B c integer', '[["4",null],["5","8"]]'],
  ])
  const ids = runs.map((run) => run.relation.id)
  assert.equal(new Set(ids).size, new Set(runs.map((run) => run.relation)).size)
})
