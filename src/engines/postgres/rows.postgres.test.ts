import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { isFault } from '#base/faults'
import type { Chunk, CopyReader, RowBlock } from '#change/copy'
import type { TableShape } from '#change/schema'
import {
  beginCopy,
  copyAll,
  everything,
  makeStage,
  migrateAll,
  openCopy,
  openEndpoint,
} from '../../../test/support/postgres-copy.ts'
import { type PostgresServer, startPostgres } from '../../../test/support/servers/postgres.ts'

const signal = AbortSignal.timeout(600_000)

/** One number for all rows of a table, whatever their order. */
async function digest(
  server: PostgresServer,
  table: string,
  database = 'postgres',
): Promise<string> {
  const [row] = await server.query<{ digest: string }>(
    `select count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) as digest from ${table} t`,
    undefined,
    database,
  )
  return row?.digest ?? ''
}

const types = `
  create type mood as enum ('a', 'b'); create type inner_pair as (m mood, n int); create domain small as int check (value < 100);
  create type floats as range (subtype = float8);
  create table plain_types (i2 int2, i8 int8, n numeric, f4 float4, f8 float8, m money, b bool, t text, v varchar(9), c char(5), na name, by bytea, d date,
    ts timestamp, tz timestamptz, tm time, tt timetz, iv interval, u uuid, j json, jb jsonb, ip inet, ci cidr, mac macaddr8, bits bit(5), vb varbit, pt point, po polygon,
    tsv tsvector, r int4range, mr nummultirange, arr int[], arr2 text[][], e mood, dm small, fr floats, l pg_lsn, o oid, ch "char", g int generated always as (i2 + 1) stored);
  insert into plain_types values (-32768, 9223372036854775807, 'NaN', '-0', 'NaN', 1.5, true, E'tab\\t\\\\ é', 'v', 'c', 'na', '\\x00ff', 'infinity', '4713-01-01 00:00:00 BC', '-infinity',
    '24:00:00', '23:59:59.999999-15:59', '-1 mon 3 days 00:00:00.000001', gen_random_uuid(), '{"a" : 1e2}', '{"b":null}', '::1/64', '10/8', '08:00:2b:01:02:03:04:05', '10101', '1', '(1,2)', '((0,0),(1,1))',
    'a:1A b', '[1,5)', '{[1,2],(3,)}', '[-1:1]={1,null,3}', '{{a,"b,c"},{"",NULL}}', 'b', 99, '[1,2)', '1/A', 4000000000, 'x', default),
    ('0', '0', 'Infinity', '3.4028235e38', 5e-324, -92233720368547758.08, false, '', '', '', '', '', '0001-01-01', 'infinity', '294276-01-01', '0:0', '00:00+0', '178000000 years', null, '[]', '[1.10]',
    '1.2.3.4', '::/0', '00:00:00:00:00:00:00:00', '00000', '', '(nan,inf)', '((0,0))', '', 'empty', '{}', '{}', '{}', 'a', 0, 'empty', '0/0', 0, '', default);
  insert into plain_types default values;
  create table own_types (moods mood[], pair inner_pair, smalls small[], cls regclass, x xml, ty regtype[], pairs inner_pair[], tsq tsquery);
  insert into own_types values ('{a,null}', '(b,1)', '{1}', 'pg_class', '<?xml version="1.0"?><a/>', '{int4,mood}', array['(a,2)'::inner_pair], 'a & !b'), (null, null, null, 0, null, null, '{}', '');
  create table no_columns (); insert into no_columns default values; insert into no_columns default values;
  create table only_generated (g int generated always as (7) stored); insert into only_generated default values;
  create table many (id int, pad text); insert into many select i, repeat(chr(65 + i % 26), i % 300) from generate_series(1, 30000) i; delete from many where id % 7 = 0;
  create table empty_one (a int)`

const tableNames = ['plain_types', 'own_types', 'no_columns', 'only_generated', 'many', 'empty_one']

test('rows of every type come over in chunks, bit by bit, tables without keys and columns too', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  // Oids of types are others on the target.
  await b.query(
    `create type something as enum (); create type other as (a int); drop type other, something`,
  )
  await a.query(types)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const schema = await source.schema.readSchema(everything, { signal })
  await makeStage(target, schema, 'rows')
  await using reader = await beginCopy(source, schema)
  await using writer = await openCopy(target)
  const byName = new Map(schema.tables.map((table) => [table.name[1] ?? '', table]))
  const encoding = (name: string) => reader.encodings(byName.get(name) ?? assert.fail())[0]
  assert.equal(encoding('own_types'), 'pg/copy-text')
  assert.equal(encoding('plain_types'), 'pg/copy-binary')
  const many = byName.get('many') ?? assert.fail()
  const chunks = await reader.plan(many, { index: 0, chunkBytes: 200_000, signal })
  assert.ok(chunks.length > 10)
  assert.ok(chunks.every((chunk) => chunk.sizeBytes <= 220_000))
  await copyAll(reader, writer, { ...schema, chunkBytes: 200_000 })
  for (const table of tableNames)
    assert.equal(await digest(b, table), await digest(a, table), table)
  const floats = `select encode(float4send(f4), 'hex') as f4, encode(float8send(f8), 'hex') as f8, encode(numeric_send(n), 'hex') as n from plain_types`
  assert.deepEqual(await b.query(floats), await a.query(floats))
})

test('a copy that ended anywhere goes on with what is not marked, and a chunk is never there twice', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  await a.query(types)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const schema = await source.schema.readSchema(everything, { signal })
  const tables = schema.tables.filter((table) => table.name[1] === 'many')
  const [table = assert.fail()] = tables
  await makeStage(target, schema, 'rows')
  let chunks: readonly Chunk[] = []
  {
    await using reader = await beginCopy(source, { tables })
    await using writer = await openCopy(target)
    chunks = await reader.plan(table, { index: 0, chunkBytes: 500_000, signal })
    const options = { encoding: 'pg/copy-binary', signal } as const
    const load = (chunk: Chunk, rows: AsyncIterable<RowBlock>) =>
      writer.load(table, chunk, rows, options)
    const [first = assert.fail(), second = assert.fail()] = chunks
    await load(first, reader.read(table, first, options))
    await assert.rejects(
      load(second, broken(reader.read(table, second, options))),
      /the mover ends/,
    )
    // The server may notice late that a session is gone: whoever comes second is told.
    await assert.rejects(load(first, reader.read(table, first, options)), (error) =>
      isFault(error, 'conflict'),
    )
    const loaded = await writer.loaded({ signal })
    assert.deepEqual(
      loaded.map((one) => [one.table, one.index, one.run]),
      [[0, 0, 0]],
    )
  }
  await using reader = await beginCopy(source, { tables })
  await using writer = await openCopy(target, 1)
  await copyAll(reader, writer, { tables, chunkBytes: 500_000 })
  assert.equal(await digest(b, 'many'), await digest(a, 'many'))
  const runs = (await writer.loaded({ signal })).map((one) => one.run)
  assert.deepEqual(new Set(runs), new Set([0, 1]))
  assert.equal(runs.length, chunks.length)
  await writer.clear(table, { index: 0, signal })
  assert.deepEqual(await writer.loaded({ signal }), [])
  assert.equal(await digest(b, 'many'), '0:0')
  await copyAll(reader, writer, { tables })
  await writer.finish(tables, { signal })
  assert.equal(await digest(b, 'many'), await digest(a, 'many'))
  const [left] = await b.query(`select to_regnamespace('redoubt') as there`)
  assert.deepEqual(left, { there: null })
})

async function* broken(rows: AsyncIterable<RowBlock>): AsyncGenerator<RowBlock, void, void> {
  for await (const block of rows) {
    yield block
    throw new Error('the mover ends')
  }
}

test('all sessions see one moment, stamped; who truncates waits, who writes does not', async () => {
  // An ANALYZE of its own is a transaction too, and changes the stamp.
  await using a = await startPostgres({ settings: { autovacuum: 'off' } })
  await a.query(
    'create table t (id int primary key); insert into t select generate_series(1, 1000)',
  )
  const source = await openEndpoint(a.url)
  const { tables } = await source.schema.readSchema(everything, { signal })
  const stampOf = async () => {
    await using reader = await beginCopy(source, { tables })
    return reader.stamp
  }
  const [stamp, same] = [await stampOf(), await stampOf()]
  assert.ok(stamp !== undefined)
  assert.equal(same, stamp)
  {
    await using reader = await beginCopy(source, { tables })
    await a.query(
      'insert into t values (1001); update t set id = -id where id < 10; delete from t where id = 500',
    )
    await assert.rejects(a.query("set lock_timeout = '50ms'; truncate t"), /lock timeout/)
    const [table = assert.fail()] = tables
    const reads = await Promise.all([
      countRows(reader, table),
      countRows(reader, table),
      countRows(reader, table),
    ])
    assert.deepEqual(reads, [1000, 1000, 1000])
  }
  assert.notEqual(await stampOf(), stamp)
  await a.query('truncate t')
})

async function countRows(reader: CopyReader, table: TableShape): Promise<number> {
  let rows = 0
  for (const chunk of await reader.plan(table, { index: 0, chunkBytes: 10_000, signal })) {
    for await (const block of reader.read(table, chunk, { encoding: 'pg/copy-binary', signal }))
      rows += block.rows
  }
  return rows
}

test('a copy that is followed leaves a slot at its very position, which a second one keeps', async () => {
  await using a = await startPostgres({ settings: { wal_level: 'logical' } })
  await a.query('create table t (id int primary key); insert into t values (1)')
  const source = await openEndpoint(a.url)
  const { tables } = await source.schema.readSchema(everything, { signal })
  const slots =
    'select slot_name, plugin, confirmed_flush_lsn::text as lsn, temporary from pg_replication_slots order by temporary'
  {
    await using reader = await beginCopy(source, { tables, follow: 'shop' })
    const [slot] = await a.query<{ slot_name: string; lsn: string }>(slots)
    const [high = '', low = ''] = slot?.lsn.split('/') ?? []
    assert.equal(reader.position?.at, high.padStart(8, '0') + low.padStart(8, '0'))
    await a.query('insert into t values (2)')
    assert.equal(await countRows(reader, tables[0] ?? assert.fail()), 1)
  }
  // The server may notice late that a session is gone, and its temporary slot with it.
  while ((await a.query(slots)).length > 1) await delay(20)
  const [before] = await a.query(slots)
  await using reader = await beginCopy(source, { tables, follow: 'shop' })
  assert.equal(await countRows(reader, tables[0] ?? assert.fail()), 2)
  const [after, ...more] = await a.query(slots)
  assert.deepEqual(after, before)
  assert.equal(more.length, 1)
})

test('text is converted by the target, and refused where it has no form there', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  const make = async (server: PostgresServer, name: string, encoding: string) =>
    server.query(`create database ${name} template template0 encoding '${encoding}' locale 'C'`)
  await make(a, 'latin', 'LATIN1')
  await make(a, 'bytes', 'SQL_ASCII')
  await make(a, 'euc', 'EUC_JP')
  await make(b, 'euc', 'UTF8')
  await make(b, 'latin', 'UTF8')
  await make(b, 'bytes', 'UTF8')
  await a.query(
    `create table t (a text); insert into t values ('é' || chr(255))`,
    undefined,
    'latin',
  )
  await a.query(`create table t (a text); insert into t values ('日本')`, undefined, 'euc')
  await a.query(`create table t (a text); insert into t values (E'\\xff')`, undefined, 'bytes')
  for (const name of ['latin', 'euc']) {
    await migrateAll(await openEndpoint(a.urlOf(name)), await openEndpoint(b.urlOf(name)))
    assert.deepEqual(
      await b.query('select * from t', undefined, name),
      await a.query('select * from t', undefined, name),
    )
  }
  await assert.rejects(
    migrateAll(await openEndpoint(a.urlOf('bytes')), await openEndpoint(b.urlOf('bytes'))),
    /invalid byte sequence for encoding "UTF8"/,
  )
})

test('rows that a trigger of the target takes away are missed at once', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  await a.query('create table t (id int primary key); insert into t select generate_series(1, 10)')
  await b.query(`create table t (id int primary key); create function drop_it() returns trigger language plpgsql as 'begin return null; end';
    create trigger eats before insert on t for each row execute function drop_it(); create role mover login password 'x'; grant all on t to mover; grant create on database postgres to mover`)
  const source = await openEndpoint(a.url)
  const schema = await source.schema.readSchema(everything, { signal })
  const copyInto = async (url: string) => {
    await using reader = await beginCopy(source, schema)
    await using writer = await openCopy(await openEndpoint(url))
    await copyAll(reader, writer, schema)
  }
  await assert.rejects(copyInto(b.urlOf('postgres', 'mover', 'x')), (error) =>
    isFault(error, 'different'),
  )
  // Who may silence triggers does.
  await copyInto(b.url)
  assert.equal(await digest(b, 't'), await digest(a, 't'))
})

test('a row of 250 MB passes in small pieces', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  await a.query(
    `create table t (id int primary key, a bytea); alter table t alter a set storage external`,
  )
  await a.query(`insert into t select 1, convert_to(repeat('0123456789', 25000000), 'UTF8')`)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const schema = await source.schema.readSchema(everything, { signal })
  await makeStage(target, schema, 'rows')
  await using reader = await beginCopy(source, schema)
  await using writer = await openCopy(target)
  const [table = assert.fail()] = schema.tables
  const [chunk = assert.fail()] = await reader.plan(table, {
    index: 0,
    chunkBytes: 1 << 20,
    signal,
  })
  const options = { encoding: 'pg/copy-binary', signal } as const
  let largest = 0
  const watched = async function* () {
    for await (const block of reader.read(table, chunk, options)) {
      largest = Math.max(largest, block.bytes.length)
      yield block
    }
  }
  assert.equal(await writer.load(table, chunk, watched(), options), 1n)
  assert.ok(largest > 0 && largest <= 512 * 1024)
  const sum = 'select length(a) as length, md5(a) as md5 from t'
  assert.deepEqual(await b.query(sum), await a.query(sum))
})

test('what keeps a role from reading or writing is told with what mends it', async () => {
  const { postgres } = await import('./postgres.ts')
  const { silentLog } = await import('#base/log')
  await using a = await startPostgres()
  await a.query(`create table t (id int); create table hidden (id int); alter table hidden enable row level security;
    create role app login password 'x'; grant select on hidden to app; select lo_create(0)`)
  const codes = async (url: string, use: 'migrate-from' | 'migrate-to') => {
    await using engine = await postgres.open(url, { signal, log: silentLog })
    return (await engine.probe(use, { signal })).map((finding) => finding.code)
  }
  const url = a.urlOf('postgres', 'app', 'x')
  assert.deepEqual(await codes(url, 'migrate-from'), [
    'no-select-right',
    'row-security',
    'no-large-object-right',
  ])
  assert.deepEqual(await codes(a.url, 'migrate-from'), [])
  assert.deepEqual(await codes(url, 'migrate-to'), ['no-create-right', 'no-replica-role'])
  await a.query('alter database postgres set default_transaction_read_only = on')
  assert.deepEqual(await codes(a.url, 'migrate-to'), ['target-read-only'])
})

test('rows that go as text are read as they were written, whatever the styles of both databases are', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  const fill = `create table styles (x xml, d date, at timestamptz, span interval, f float8, b bytea);
    insert into styles values ('<a/>', '2026-05-01', '2026-05-01 10:11:12.5+09', '-1 year 2 days', 0.1::float8 + 0.2, '\\x5c00')`
  await a.query(fill)
  const styles = [
    `datestyle = 'SQL, DMY'`,
    `timezone = 'Asia/Tokyo'`,
    `intervalstyle = 'sql_standard'`,
    'extra_float_digits = -3',
    `bytea_output = 'escape'`,
  ]
  for (const style of styles) await a.query(`alter database postgres set ${style}`)
  await b.query(`alter database postgres set datestyle = 'ISO, MDY'`)
  await migrateAll(await openEndpoint(a.url), await openEndpoint(b.url))
  const exact = `select x::text, d - date '2000-01-01' as d, extract(epoch from at)::text as at, extract(epoch from span)::text as span, encode(float8send(f), 'hex') as f, encode(b, 'hex') as b from styles`
  assert.deepEqual(await b.query(exact), await a.query(exact))
  assert.equal((await a.query<{ d: number }>(exact))[0]?.d, 9617)
})
