import assert from 'node:assert/strict'
import { test } from 'node:test'
import { migrateAll, openEndpoint } from '../support/postgres-copy.ts'
import { type PostgresServer, startPostgres } from '../support/servers/postgres.ts'
import { namedRows, unequal, verifyEnds } from '../support/verify-ends.ts'
import { verbTrial } from '../support/verify-verb.ts'

const types = `
  create type mood as enum ('a', 'b'); create type inner_pair as (m mood, n int); create domain small as int check (value < 100);
  create table every (id int primary key, i2 int2, i8 int8, n numeric, n2 numeric(12,2), f4 float4, f8 float8, m money, b bool, t text, v varchar(9), c char(5), na name, by bytea, d date,
    ts timestamp, tz timestamptz, tm time, tt timetz, iv interval, u uuid, j json, jb jsonb, ip inet, ci cidr, mac macaddr8, bits bit(5), vb varbit, pt point, po polygon,
    tsv tsvector, r int4range, mr nummultirange, arr int[], arr2 text[][], e mood, dm small, l pg_lsn, o oid, ch "char", g int generated always as (i2 + 1) stored,
    pair inner_pair, moods mood[], x xml, cls regclass);
  insert into every values (1, -32768, 9223372036854775807, 'NaN', 1.50, '-0', 'NaN', 1.5, true, E'tab\\t\\\\ é', 'v', 'c', 'na', '\\x00ff', 'infinity', '4713-01-01 00:00:00 BC', '-infinity',
    '24:00:00', '23:59:59.999999-15:59', '-1 mon 3 days 00:00:00.000001', '6ecd8c99-4036-403d-bf84-cf8400f67836', '{"a" : 1e2}', '{"b":null}', '::1/64', '10/8', '08:00:2b:01:02:03:04:05', '10101', '1', '(1,2)', '((0,0),(1,1))',
    'a:1A b', '[1,5)', '{[1,2],(3,)}', '[-1:1]={1,null,3}', '{{a,"b,c"},{"",NULL}}', 'b', 99, '1/A', 4000000000, 'x', default, '(b,1)', '{a,null}', '<a/>', 'pg_class'),
    (2, '0', '0', 'Infinity', 0, '3.4028235e38', 5e-324, -92233720368547758.08, false, '', '', '', '', '', '0001-01-01', 'infinity', '294276-01-01', '0:0', '00:00+0', '178000000 years', null, '[]', '[1.10]',
    '1.2.3.4', '::/0', '00:00:00:00:00:00:00:00', '00000', '', '(nan,inf)', '((0,0))', '', 'empty', '{}', '{}', '{}', 'a', 0, '0/0', 0, '', default, null, '{}', null, 0);
  insert into every (id, t, by, arr2) values (3, repeat('long é', 2000), decode(repeat('00ff', 5000), 'hex'), array_fill(repeat('y', 100), array[100]));
  insert into every (id) values (4);
  create table no_columns (); insert into no_columns default values; insert into no_columns default values;
  create table wide (${Array.from({ length: 150 }, (_, n) => `c${n} ${n % 3 === 0 ? 'text' : 'int'}`).join(', ')}, primary key (c1));
  insert into wide (c0, c1, c3) values ('x', 1, null), ('', 2, 'z');
  create table bag (a int, b text); insert into bag values (1, 'x'), (1, 'x'), (2, null), (3, ''), (4, 'z');
  create table opt (a int unique, b int); insert into opt values (1, 1), (null, 2), (null, 2);
  create table auto (id bigint generated always as identity primary key, v text); insert into auto (v) select 'v' || n from generate_series(1, 20) n;
  create table many (id int primary key, pad text); insert into many select i, repeat(chr(65 + i % 26), i % 60) from generate_series(1, 30000) i;
  create table logs (day date not null, line text) partition by range (day);
  create table logs_1 partition of logs for values from ('2026-01-01') to ('2026-02-01');
  insert into logs values ('2026-01-05', 'x'), ('2026-01-06', 'y');
  create schema "odd ""schema"""; create table "odd ""schema"".t" (a int primary key); create table "odd ""schema"""."t 'x'" ("a ""b" text primary key); insert into "odd ""schema"""."t 'x'" values ('it''s \\ x');
  select lo_from_bytea(0, '\\x0102');
  create sequence numbers; select nextval('numbers') from generate_series(1, 5);
  create function note() returns trigger language plpgsql as $$ begin new.v = 'changed'; return new; end $$;
  create trigger auto_note before insert or update on auto for each row execute function note();`

async function pair(sql: string): Promise<[PostgresServer, PostgresServer] & AsyncDisposable> {
  const source = await startPostgres()
  const target = await startPostgres()
  const dispose = async () => {
    await source[Symbol.asyncDispose]()
    await target[Symbol.asyncDispose]()
  }
  try {
    await source.query(sql)
    await migrateAll(await openEndpoint(source.url), await openEndpoint(target.url))
  } catch (error) {
    await dispose()
    throw error
  }
  return Object.assign([source, target] as [PostgresServer, PostgresServer], {
    [Symbol.asyncDispose]: dispose,
  })
}

const damage = `
  update every set f4 = 0, f8 = 0 where id = 1; update every set t = null, j = '{"a":1e2}' where id = 2; update every set by = set_byte(by, 9000, 1), arr2[3] = 'z' where id = 3;
  update every set t = '' where id = 4; delete from bag where a = 4; insert into bag values (1, 'x'), (5, 'new'); update bag set b = '' where a = 2;
  insert into opt values (null, 2); delete from many where id = 15000; insert into many values (-1, 'extra'); update many set pad = pad || ' ' where id = 7;
  update many set pad = lower(pad) where id = 8; alter table auto disable trigger auto_note; update auto set v = 'V3' where id = 3; delete from auto where id = 4; alter table auto enable trigger auto_note;
  insert into logs values ('2026-01-07', 'z'); update wide set c149 = 0 where c1 = 2; insert into no_columns default values; update "odd ""schema"""."t 'x'" set "a ""b" = 'it''s'`

const named = [
  'different public.auto id=3: v',
  'different public.every id=1: f4, f8',
  'different public.every id=2: t, j',
  'different public.every id=3: by, arr2',
  'different public.every id=4: t',
  'different public.many id=7: pad',
  'different public.many id=8: pad',
  'different public.wide c1=2: c149',
  `extra odd "schema".t 'x' a "b=it's`,
  'extra public.bag a=1 b=x',
  'extra public.bag a=2 b=',
  'extra public.bag a=5 b=new',
  'extra public.logs_1 day=2026-01-07 line=z',
  'extra public.many id=-1',
  'extra public.no_columns ',
  'extra public.opt a=NULL b=2',
  `missing odd "schema".t 'x' a "b=it's \\ x`,
  'missing public.auto id=4',
  'missing public.bag a=2 b=NULL',
  'missing public.bag a=4 b=z',
  'missing public.many id=15000',
]

test('values of every type are equal after a copy; each difference is found, named, and repaired', async () => {
  await using servers = await pair(types)
  const [source, target] = servers
  const verified = await verifyEnds(source.url, target.url)
  assert.deepEqual(unequal(verified), [])
  assert.ok(verified.tables.length >= 10)
  await target.query(damage)
  const found = await verifyEnds(source.url, target.url)
  assert.deepEqual([namedRows(found), found.structure], [named.toSorted(), []])
  const many = found.tables.find(({ name }) => name[1] === 'many')
  assert.deepEqual([many?.by, many?.sourceRows, many?.targetRows], ['ranges', 30_000n, 30_000n])
  // Triggers do not fire, and identities are written.
  const repaired = await verifyEnds(source.url, target.url, { repair: 'apply' })
  assert.deepEqual([unequal(repaired), repaired.equal], [[], true])
  const after = await verifyEnds(source.url, target.url)
  assert.deepEqual([unequal(after), namedRows(after)], [[], []])
})

test('a plan makes the target equal when an operator runs it', async () => {
  await using servers = await pair(types.replace(/create trigger.*;/, ''))
  const [source, target] = servers
  await target.query(damage.replaceAll(/alter table auto \w+ trigger auto_note;/g, ''))
  const planned = await verifyEnds(source.url, target.url, { repair: 'plan' })
  assert.equal((await verifyEnds(source.url, target.url)).equal, false)
  await target.query((planned.repair?.statements ?? []).join(';\n'))
  const verified = await verifyEnds(source.url, target.url)
  assert.deepEqual([unequal(verified), verified.equal], [[], true])
})

test('keys under collations that differ from side to side, and values that change places', async () => {
  await using source = await startPostgres()
  await using target = await startPostgres()
  const words = `insert into words select case when i % 3 = 0 then 'W' else 'w' end || i, i from generate_series(1, 5000) i;
    create table swap (id int primary key, u int unique); create table pairs (a int, b bigint, c text, primary key (a, b, c)); insert into pairs select 1, i % 9, i from generate_series(1, 5000) i`
  await source.query(
    `create table words (w text collate "C" primary key, v int); ${words}; insert into swap values (1, 10), (2, 20), (3, 30)`,
  )
  await target.query(
    `create collation folded (provider = icu, locale = 'und'); create table words (w text collate folded primary key, v int);
     ${words}; insert into swap values (1, 20), (2, 30), (3, 10)`,
  )
  await target.query(
    "update words set v = -1 where w = 'w1234'; delete from pairs where a = 1 and b = 4 and c = '4000'",
  )
  const options = { include: ['public.words', 'public.pairs'] }
  const verified = await verifyEnds(source.url, target.url, options)
  const expected = ['different public.words w=w1234: v', 'missing public.pairs a=1 b=4 c=4000']
  assert.deepEqual(namedRows(verified), expected)
  const by = new Map(verified.tables.map((table) => [table.name[1], table.by]))
  assert.deepEqual([by.get('words'), by.get('pairs')], ['buckets', 'ranges'])
  const swap = await verifyEnds(source.url, target.url, {
    include: ['public.swap'],
    repair: 'apply',
  })
  assert.deepEqual([unequal(swap), swap.tables[0]?.repaired], [[], 3])
})

test('databases that sort by other rules under one name are compared row by row all the same', async () => {
  await using source = await startPostgres()
  await using target = await startPostgres()
  const sql = `create table words (w text primary key, v int); insert into words select chr(65 + i % 58) || i % 7 || chr(97 + i % 11) || i, i from generate_series(1, 6000) i`
  for (const [server, locale] of [
    [source, `locale 'C'`],
    [target, `locale_provider icu icu_locale 'und' locale 'C'`],
  ] as const) {
    await server.query(`create database d encoding 'UTF8' template template0 ${locale}`)
    await server.query(sql, undefined, 'd')
  }
  const [from, to] = [source.urlOf('d'), target.urlOf('d')]
  assert.deepEqual(unequal(await verifyEnds(from, to)), [])
  await target.query(
    "update words set v = -1 where v = 1234; delete from words where v = 5000; insert into words values ('a', 0)",
    undefined,
    'd',
  )
  const rows = namedRows(await verifyEnds(from, to))
  assert.deepEqual(
    rows.map((line) => line.replace(/w=\S+?(:|$)/, 'w$1')),
    ['different public.words w: v', 'extra public.words w', 'missing public.words w'],
  )
})

test('databases of other encodings hold the same text, and are repaired', async () => {
  await using source = await startPostgres()
  await using target = await startPostgres()
  const sql = `create table t (k text primary key, v text, j json); insert into t values ('é', repeat('ü', 5000), '{"ä":1}'), ('ab', 'ö', null), ('ÿ', '', '1')`
  for (const [server, encoding] of [
    [source, 'LATIN1'],
    [target, 'UTF8'],
  ] as const) {
    await server.query(`create database d encoding '${encoding}' template template0 locale 'C'`)
    await server.query(sql, undefined, 'd')
  }
  const [from, to] = [source.urlOf('d'), target.urlOf('d')]
  const equal = await verifyEnds(from, to)
  assert.deepEqual([namedRows(equal), equal.tables[0]?.by], [[], 'ranges'])
  assert.match(equal.structure[0]?.said ?? '', /column k: character set is UTF8, not LATIN1/)
  await target.query(
    "update t set v = 'o' where k = 'ab'; delete from t where k = 'é'",
    undefined,
    'd',
  )
  const repaired = await verifyEnds(from, to, { repair: 'apply' })
  const named = ['different public.t k=ab: v', 'missing public.t k=é']
  assert.deepEqual([namedRows(repaired), repaired.tables[0]?.repaired], [named, 2])
  assert.deepEqual(namedRows(await verifyEnds(from, to)), [])
})

test('the verb ends with the exit code that says it, and leaves no statement behind', async () => {
  await using source = await startPostgres()
  await using target = await startPostgres()
  for (const server of [source, target]) {
    await server.query(
      "create table one (id int primary key, v text); insert into one values (1, 'a'), (2, 'b'), (3, 'c')",
    )
  }
  await verbTrial({
    from: source.url,
    to: target.url,
    scope: 'public',
    spoil: () => target.query("update one set v = 'other' where id = 2"),
    hold: async () => {
      const client = await target.connect('postgres')
      await client.query('begin; lock table one')
      return client
    },
    // Reading the catalog waits already.
    endAtOnce: false,
    readers: async () => {
      const rows = await target.query(
        "select 1 from pg_stat_activity where wait_event_type = 'Lock' and pid <> pg_backend_pid()",
      )
      return rows.length
    },
  })
})

test('nobody raises a false alarm beside writers on both sides', async () => {
  await using source = await startPostgres()
  await using target = await startPostgres()
  for (const server of [source, target]) {
    await server.query(
      'create table t (id int primary key, v int, w text); insert into t select n, 0, repeat(chr(65 + n % 26), 9) from generate_series(1, 10000) n; create table bag (a int, b text); insert into bag select n, n from generate_series(1, 100) n',
    )
  }
  await source.query('update t set v = -1 where id = 777; delete from bag where a = 13')
  const stop = new AbortController()
  const writing = writeBoth(source, target, stop.signal)
  try {
    const verified = await verifyEnds(source.url, target.url, { recheckMs: 6000 })
    assert.deepEqual(namedRows(verified), [
      'different public.t id=777: v',
      'extra public.bag a=13 b=13',
    ])
  } finally {
    stop.abort()
    await writing
  }
})

/** The same writes on both, the target a moment later, as a follower has them. */
async function writeBoth(
  source: PostgresServer,
  target: PostgresServer,
  signal: AbortSignal,
): Promise<void> {
  await using first = await source.connect('postgres')
  await using second = await target.connect('postgres')
  for (let at = 1; !signal.aborted; at++) {
    const id = 1 + ((at * 7919) % 10_000)
    const sql =
      id === 777
        ? 'select 1'
        : at % 2 === 0
          ? `update t set v = ${at} where id = ${id}`
          : `insert into bag values (${1000 + at}, 'new'); delete from bag where a = ${998 + at}`
    await first.query(sql)
    await second.query(sql)
    // A writer that never rests would leave no processor to who compares.
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
