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
import { imagesOf } from '../../../../test/support/postgres-mirror.ts'
import { startPostgres } from '../../../../test/support/servers/postgres.ts'

/** Each type with values at its edges. */
const values: Readonly<Record<string, readonly string[]>> = {
  smallint: ['-32768', '32767'],
  integer: ['-2147483648', '0'],
  bigint: ['-9223372036854775808', '9223372036854775807'],
  numeric: [
    'NaN',
    'Infinity',
    '-Infinity',
    '-0.00',
    '1e-20',
    '12345678901234567890.123456789',
    '1e300',
  ],
  'numeric(12,2)': ['1.5', '-9999999999.99', '0'],
  'numeric(5,0)': ['99999'],
  real: ['-0', 'NaN', '3.4028235e38', '1e-45', '0.1', 'Infinity', '123456', '16777216', '1.5e-5'],
  'double precision': [
    '-0',
    'NaN',
    '5e-324',
    '1.7976931348623157e308',
    '0.1',
    '-Infinity',
    '1e15',
    '1e14',
    '123456789012345680',
    '0.0001',
    '0.00001',
  ],
  money: ['-92233720368547758.08', '1.5', '1234567.89'],
  boolean: ['t', 'f'],
  text: ['', 'é😀', "a\ttab \\ 'q'\nline"],
  'character varying(9)': ['v', ''],
  'character(5)': ['c', ''],
  name: ['na'],
  '"char"': ['x', ''],
  bytea: ['\\x', '\\x00ff5c'],
  date: [
    'infinity',
    '-infinity',
    '4713-01-01 BC',
    '0001-01-01',
    '2026-05-01',
    '5874897-12-31',
    '0044-03-15 BC',
  ],
  'time without time zone': ['24:00:00', '00:00:00', '23:59:59.999999', '10:11:12.5'],
  'time(3) without time zone': ['10:11:12.125'],
  'time with time zone': ['23:59:59.999999-15:59', '00:00:00+0', '12:00+05:30', '12:00+05:30:15'],
  'timestamp without time zone': [
    '-infinity',
    'infinity',
    '4713-01-01 00:00:00 BC',
    '294276-12-31 23:59:59.999999',
    '2026-05-01 10:11:12.5',
    '1999-12-31 23:59:59.999999',
  ],
  'timestamp(0) without time zone': ['2026-05-01 10:11:12'],
  'timestamp with time zone': [
    '-infinity',
    'infinity',
    '4713-01-01 00:00:00+00 BC',
    '1969-12-31 23:59:59.000001+00',
    '2026-05-01 10:11:12+09',
  ],
  interval: [
    '-1 mon 3 days 00:00:00.000001',
    '178000000 years',
    '-178000000 years',
    '0',
    '1 year -2 mons',
    '-00:00:01',
    '1 day -01:00:00',
    '-1 year +1 mon',
    '100:00:00.5',
  ],
  uuid: ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
  json: ['{"a" : 1e2}', 'null'],
  jsonb: ['{"b":null, "a":[1.10, "\\u00e9"]}', '[]'],
  inet: ['::1/64', '1.2.3.4', '10.0.0.0/8', '2001:db8::1', '::ffff:1.2.3.4'],
  cidr: ['10.0.0.0/8', '::/0', '2001:db8::/32'],
  macaddr: ['08:00:2b:01:02:03'],
  macaddr8: ['08:00:2b:01:02:03:04:05'],
  'bit(5)': ['10101'],
  'bit varying': ['', '1', '101010101'],
  point: ['(1,2)', '(nan,-inf)', '(0.1,-0)'],
  polygon: ['((0,0),(1,1))'],
  tsvector: ["'a':1A 'b'", ''],
  tsquery: ["'a' & !'b'", ''],
  int4range: ['[1,5)', 'empty', '(,)'],
  tstzrange: ['["2026-05-01 00:00:00+00",)'],
  'integer[]': ['[-1:1]={1,NULL,3}', '{}', '{{1,2},{3,4}}'],
  'text[]': ['{{a,"b,c"},{"",NULL}}', '{"a b","\\"","null",é}'],
  'timestamp without time zone[]': ['{"2026-05-01 10:11:12.5"}'],
  'public.mood': ['so', 'La la'],
  'public.pair': ['("La la",1)', '(,)'],
  xml: ['<?xml version="1.0"?><a/>'],
  regclass: ['pg_class'],
  oid: ['4000000000'],
  pg_lsn: ['16/B374D848', '0/0'],
  jsonpath: ['$."a"'],
  tid: ['(4294967295,65535)'],
  xid: ['4294967295'],
}

test('changes: the value of every type is what SQL prints, whatever the settings of the server are', async () => {
  await using server = await startPostgres({ settings })
  const types = Object.keys(values)
  const columns = types.map((type, index) => `c${index} ${type}`)
  await server.query(
    `${over}; create type mood as enum ('so', 'La la'); create type pair as (m mood, n int)`,
  )
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
  const depth = Math.max(...Object.values(values).map((list) => list.length))
  for (let row = 0; row <= depth; row += 1) {
    const cells = types.map((type) => values[type]?.[row] ?? null)
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
