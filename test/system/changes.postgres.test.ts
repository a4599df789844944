import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  caughtUpTrial,
  type ChangesPair,
  type Writer,
  killedChangesTrial,
  lostTargetOfChangesTrial,
} from '../support/changes-trial.ts'
import { Dice } from '../support/dice.ts'
import { blockedTrial, migratedOf, runMigrate } from '../support/migrate-trial.ts'
import { Scratch } from '../support/scratch.ts'
import { type PostgresServer, startPostgres } from '../support/servers/postgres.ts'

const logical = { settings: { wal_level: 'logical', logical_decoding_work_mem: '64kB' } }
const largeRows = 25_000

test('a mover that is killed beside writers applies each transaction once', async () => {
  await using source = await startPostgres(logical)
  await using target = await startPostgres()
  await killedChangesTrial(await pairOf(source, target), 5)
})

test('stopped beside writers it goes on, and ends when it has caught up', async () => {
  await using source = await startPostgres(logical)
  await using target = await startPostgres()
  await caughtUpTrial(await pairOf(source, target))
})

test('a target that dies while changes come is waited for', async () => {
  await using source = await startPostgres(logical)
  await using target = await startPostgres()
  await lostTargetOfChangesTrial(await pairOf(source, target))
})

test('a row that somebody took away stops the link, and the policy of a resume settles it', async () => {
  using scratch = new Scratch('changes')
  await using source = await startPostgres(logical)
  await using target = await startPostgres()
  const { ends } = await pairOf(source, target)
  const args = [...ends, '--state', scratch.join('state'), '--log-level', 'debug']
  const moment = { line: /reads changes behind/, nth: 1, afterMs: 0, how: 'SIGINT' } as const
  const stopped = await runMigrate([...args, '--until', 'never'], moment)
  assert.equal(stopped.code, 130, stopped.said)
  await target.query('delete from counter where id = 3', undefined, 'shop')
  await source.query('update counter set n = n + 1', undefined, 'shop')
  const resumed = [...args, '--resume', '--until', 'caught-up']
  const refused = await runMigrate(resumed)
  assert.equal(refused.code, 1, refused.out)
  assert.match(refused.out, /"code":"conflict".*counter.*--on-conflict/)
  const settled = await runMigrate([...resumed, '--on-conflict', 'overwrite'])
  assert.equal(settled.code, 3, settled.said)
  const codes = migratedOf(settled).findings.map(({ code }) => code)
  assert.deepEqual(codes, ['conflicts-settled'])
  const counters = 'select id, n from counter order by id'
  assert.deepEqual(
    await target.query(counters, undefined, 'shop'),
    await source.query(counters, undefined, 'shop'),
  )
  const noted = 'select table_name, done from redoubt.conflict'
  assert.equal((await target.query(noted, undefined, 'shop')).length, 1)
})

test('tables of two moments whose rows do not fit become one that does', async () => {
  using scratch = new Scratch('changes')
  await using source = await startPostgres(logical)
  await using target = await startPostgres()
  await source.query('create database shop')
  await target.query('create database shop')
  const sql = `create table parent (id int primary key);
    create table child (id int primary key, parent int not null references parent, filler text);
    insert into parent select n from generate_series(1, 3000) n;
    insert into child select n, n, repeat('f', 500) from generate_series(1, 3000) n`
  await source.query(sql, undefined, 'shop')
  const state = scratch.join('state')
  const ends = ['--from', source.urlOf('shop'), '--to', target.urlOf('shop'), '--state', state]
  const args = [...ends, '--until', 'caught-up', '--log-level', 'debug', '--parallel', '1']
  // The larger one comes first; the other takes longer than the mover lives.
  const moment = { line: /loaded a chunk/, nth: 1, afterMs: 0 }
  const killed = await runMigrate([...args, '--limit', '2000rows/s'], moment)
  assert.equal(killed.code, 128, killed.said)
  await source.query(
    'delete from child where id = 7; delete from parent where id = 7',
    undefined,
    'shop',
  )
  const resumed = await runMigrate([...args, '--resume'])
  assert.match(resumed.said, /is made when all changes are there/)
  assert.deepEqual(migratedOf(resumed).findings, [])
  const count =
    'select (select count(*) from parent)::int as p, (select count(*) from child)::int as c'
  assert.deepEqual(await target.query(count, undefined, 'shop'), [{ p: 2999, c: 2999 }])
  const valid = "select convalidated as v from pg_constraint where contype = 'f'"
  assert.deepEqual(await target.query(valid, undefined, 'shop'), [{ v: true }])
})

test('what the source lacks for changes is told before anything is written', async () => {
  await using source = await startPostgres()
  await using target = await startPostgres()
  const { ends } = await pairOf(source, target)
  await blockedTrial([...ends, '--until', 'caught-up'])
  const tables = await target.query(
    "select 1 from pg_tables where schemaname = 'public'",
    undefined,
    'shop',
  )
  assert.deepEqual(tables, [])
})

async function pairOf(source: PostgresServer, target: PostgresServer): Promise<ChangesPair> {
  await source.query('create database shop')
  await target.query('create database shop')
  await source.query(tables, undefined, 'shop')
  return {
    ends: ['--from', source.urlOf('shop'), '--to', target.urlOf('shop')],
    openWriter: (writer) => openWriter(source, writer),
    writeLarge: () => writeLarge(source),
    applies: async () => {
      const sql = 'select 1 from redoubt.applied_change where low is not null'
      return (await target.query(sql, undefined, 'shop').catch(() => [])).length > 0
    },
    loseTarget: async () => {
      await target.kill9()
      await target.start()
    },
    same: () => same(source, target),
  }
}

/** `hit` has no key: a transaction that came twice would leave two of its rows. */
const tables = `
  create table customer (id int primary key, name text not null unique);
  create table orders (id bigserial primary key, customer int not null references customer, total numeric(12,2),
    note text, doc jsonb, at timestamptz not null default now());
  create index on orders (customer);
  create table counter (id int primary key, n bigint not null);
  create table hit (writer int, seq int);
  alter table hit replica identity full;
  create table bulk (id int primary key, body text);
  create table audit (id bigserial primary key, said text);
  create view big as select * from orders where total > 100;
  create materialized view totals as select customer, sum(total) as total from orders group by 1;
  create function note() returns trigger language plpgsql as $$ begin insert into audit (said) values (new.note); return new; end $$;
  create trigger orders_note before insert on orders for each row execute function note();
  insert into customer select n, 'customer ' || n from generate_series(1, 200) n;
  insert into orders (customer, total, note) select 1 + n % 200, n / 7.0, repeat('n', n % 100) from generate_series(1, 5000) n;
  insert into counter select n, 0 from generate_series(1, 5) n;
  insert into bulk select n, 'row ' || n from generate_series(1, 500) n`

/** Each transaction inserts, changes and takes away, counts on a hot row, and leaves one row in \`hit\`. */
async function openWriter(server: PostgresServer, writer: number): Promise<Writer> {
  const client = await server.connect('shop')
  const dice = new Dice(writer + 1)
  const write = async (seq: number) => {
    const customer = 1 + dice.roll(200)
    const sql = `begin;
      insert into orders (customer, total, note, doc) values (${customer}, ${dice.roll(10_000)}, 'by ${writer}', '{"a": [1, null, "x"]}');
      update orders set total = total + 1, note = repeat('u', ${dice.roll(3000)}) where id = ${1 + dice.roll(5000)};
      delete from orders where id = ${1 + dice.roll(5000)} and id % 7 = 0;
      update counter set n = n + 1 where id = ${1 + dice.roll(5)};
      update customer set name = 'customer ' || id || '.' || ${seq} where id = ${customer};
      insert into hit values (${writer}, ${seq});
      ${dice.roll(10) === 0 ? 'rollback' : 'commit'}`
    // Writers may deadlock with one another: then none of it is there.
    await client.query(sql).catch((error: { readonly code?: string }) => {
      if (error.code !== '40P01') throw error
      return client.query('rollback')
    })
  }
  return { write, [Symbol.asyncDispose]: async () => client[Symbol.asyncDispose]() }
}

async function writeLarge(server: PostgresServer): Promise<void> {
  const sql = `begin;
    insert into bulk select n, 'large ' || n from generate_series(1001, ${1000 + largeRows}) n;
    update bulk set body = body || '.' where id <= 300;
    insert into hit values (99, (select count(*) from hit where writer = 99)); commit`
  await server.query(sql, undefined, 'shop')
}

async function same(source: PostgresServer, target: PostgresServer): Promise<void> {
  assert.deepEqual(await contents(target), await contents(source))
  const twice = 'select writer, seq from hit group by 1, 2 having count(*) > 1'
  assert.deepEqual(await target.query(twice, undefined, 'shop'), [])
  const dump = (server: PostgresServer) =>
    server.tool('pg_dump', '--schema-only', 'shop').replaceAll(/^\\(un)?restrict .*$/gm, '')
  // Of other versions there is no dump program.
  if (source.version === '17') assert.equal(dump(target), dump(source))
  assert.deepEqual(await source.query('select slot_name from pg_replication_slots'), [])
  const left = "select 1 from pg_namespace where nspname = 'redoubt'"
  assert.deepEqual(await target.query(left, undefined, 'shop'), [])
  const publications = 'select pubname from pg_publication'
  assert.deepEqual(await source.query(publications, undefined, 'shop'), [])
}

async function contents(server: PostgresServer): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {}
  for (const table of ['customer', 'orders', 'counter', 'hit', 'bulk', 'audit', 'totals']) {
    if (table === 'totals')
      await server.query('refresh materialized view totals', undefined, 'shop')
    const sql = `select count(*) as count, md5(string_agg(x::text, '|' order by x::text)) as sum from ${table} x`
    found[table] = await server.query(sql, undefined, 'shop')
  }
  for (const sequence of ['orders_id_seq', 'audit_id_seq']) {
    found[sequence] = await server.query(`select last_value from ${sequence}`, undefined, 'shop')
  }
  return found
}
