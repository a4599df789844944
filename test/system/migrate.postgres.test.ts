import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Dice } from '../support/dice.ts'
import {
  blockedTrial,
  killedTrial,
  killMigrate,
  lostTargetTrial,
  type MigratePair,
  migratedOf,
  runMigrate,
  slow,
  standsAt,
} from '../support/migrate-trial.ts'
import { Scratch } from '../support/scratch.ts'
import { type PostgresServer, startPostgres } from '../support/servers/postgres.ts'

const seed = 11
const rows = 40_000
/** Its ANALYZE is a transaction too: the source would not have stood still. */
const quiet = { settings: { autovacuum: 'off' } }

test('a mover that is killed again and again brings all objects and every row, once', async () => {
  await using source = await startPostgres(quiet)
  await using target = await startPostgres()
  await killedTrial(await pairOf(source, target))
})

test('killed beside writers, each table comes at one moment, and the findings say that they differ', async () => {
  using scratch = new Scratch('migrate')
  await using source = await startPostgres()
  await using target = await startPostgres()
  const { ends } = await pairOf(source, target)
  const trial = { state: scratch.join('state'), dice: new Dice(seed), kills: 5 }
  const stop = new AbortController()
  const writing = write(source, stop.signal)
  const killed = await killMigrate({ ...trial, args: [...ends, ...slow] })
  stop.abort()
  await writing
  const { findings, positions } = migratedOf(killed.last)
  assert.ok(positions.length > 1, killed.at.join())
  assert.ok(findings.some(({ code }) => code === 'several-positions'))
  // Each transaction of the writer keeps the sum of a table: a copy of two moments would not.
  const [sum] = await target.query('select sum(n) as n, count(*) as c from pair', undefined, 'shop')
  assert.deepEqual(sum, { n: '1000', c: '1000' })
})

test('a target that dies while rows come is waited for, and the copy stays at one position', async () => {
  await using source = await startPostgres(quiet)
  await using target = await startPostgres()
  await lostTargetTrial(await pairOf(source, target))
})

test('Ctrl-C ends with 130 in good order, and what was begun is refused without --resume', async () => {
  using scratch = new Scratch('migrate')
  await using source = await startPostgres(quiet)
  await using target = await startPostgres()
  const { ends } = await pairOf(source, target)
  const args = [...ends, '--state', scratch.join('state'), '--log-level', 'debug']
  const moment = { line: /loaded a chunk/, nth: 3, afterMs: 0, how: 'SIGINT' } as const
  const stopped = await runMigrate([...args, ...slow], moment)
  assert.equal(stopped.code, 130, stopped.said)
  assert.match(stopped.out, /"code":"interrupted"/)
  assert.equal(standsAt(scratch.join('state')), 'copying')
  const again = await runMigrate(args)
  assert.equal(again.code, 1)
  assert.match(again.out, /"code":"exists".*--resume/)
  const other = await runMigrate([...args, '--resume', '--include', 'public.*'])
  assert.equal(other.code, 2)
  assert.match(other.out, /another --include/)
  migratedOf(await runMigrate([...args, '--resume']))
  await same(source, target)
  // Nothing of Redoubt is left on the target.
  const schemas = await target.query(
    "select 1 from pg_namespace where nspname = 'redoubt'",
    undefined,
    'shop',
  )
  assert.deepEqual(schemas, [])
})

test('rows are not copied below triggers that would change them', async () => {
  using scratch = new Scratch('migrate')
  await using source = await startPostgres()
  await using target = await startPostgres()
  const sql = `create table t (a int primary key, b text);
    create function f() returns trigger language plpgsql as $$ begin new.b = 'changed'; return new; end $$;
    insert into t values (1, 'as it is');
    create trigger "t 1" before insert on t for each row execute function f()`
  await source.query(sql)
  await target.query("create role mover login password 'x'")
  await target.query('create database shop owner mover')
  const to = target.urlOf('shop', 'mover', 'x')
  const ends = ['--from', source.url, '--to', to, '--include', 'public.*']
  const state = (name: string) => ['--state', scratch.join(name)]
  migratedOf(await runMigrate([...ends, '--phases', 'schema', ...state('one')]))
  const refused = await runMigrate([...ends, '--phases', 'copy', ...state('two')])
  assert.equal(refused.code, 5, refused.out)
  assert.match(refused.out, /DISABLE TRIGGER \\"t 1\\"/)
  await target.query('alter table t disable trigger "t 1"', undefined, 'shop')
  migratedOf(await runMigrate([...ends, '--phases', 'copy', ...state('two')]))
  assert.deepEqual(await target.query('select b from t', undefined, 'shop'), [{ b: 'as it is' }])
})

test('a target that has rows is refused, and nothing is written; a dry run tells the same', async () => {
  await using source = await startPostgres()
  await using target = await startPostgres()
  await source.query('create table t (a int primary key); insert into t values (1)')
  await target.query('create table t (a int primary key); insert into t values (2)')
  await blockedTrial(['--from', source.url, '--to', target.url])
  assert.deepEqual(await target.query('select a from t'), [{ a: 2 }])
  assert.deepEqual(await target.query("select 1 from pg_namespace where nspname = 'redoubt'"), [])
})

async function pairOf(source: PostgresServer, target: PostgresServer): Promise<MigratePair> {
  await makeShop(source)
  await target.query('create database shop')
  return {
    ends: ['--from', source.urlOf('shop'), '--to', target.urlOf('shop')],
    seed,
    rows,
    same: () => same(source, target),
    marks: async () => {
      const sql = 'select 1 from redoubt.copied_chunk'
      return (await target.query(sql, undefined, 'shop').catch(() => [])).length
    },
    loseTarget: async () => {
      await target.kill9()
      await target.start()
    },
  }
}

/** Objects of many kinds, and forty thousand orders. */
async function makeShop(server: PostgresServer): Promise<void> {
  await server.query('create database shop')
  const sql = `
    create schema stock;
    create type mood as enum ('sad', 'glad');
    create domain price as numeric(12,2) check (value >= 0);
    create sequence stock.numbers start 100;
    select nextval('stock.numbers') from generate_series(1, 17);
    create table customer (id bigint generated always as identity primary key, name text not null unique, mood mood);
    create table orders (id bigserial primary key, customer bigint not null references customer, total price,
      note text default 'none', at timestamptz not null default now(), twice numeric generated always as (total * 2) stored);
    create index orders_at on orders (at) include (note);
    create index orders_big on orders (total) where total > 100;
    create table unkeyed (a int, b text);
    create table stock."odd ""name"" 🍊" ("a ""b" int primary key, c float4, d float8, e date, f bit(12), g bytea, h int[]);
    create table logs (day date not null, line text) partition by range (day);
    create table logs_1 partition of logs for values from ('2026-01-01') to ('2026-02-01');
    create table logs_2 partition of logs for values from ('2026-02-01') to ('2026-03-01');
    create index on logs (day);
    create table pair (id int primary key, n int not null);
    create view big as select * from orders where total > 100;
    create view bigger as select * from big where total > 1000;
    create function note() returns trigger language plpgsql as $$ begin new.note = 'made'; return new; end $$;
    create trigger orders_note before insert on orders for each row execute function note();
    comment on table orders is 'what was sold';
    insert into customer (name, mood) select 'customer ' || n, 'glad' from generate_series(1, 1000) n;
    insert into orders (customer, total, note) select 1 + n % 1000, n / 7.0, repeat('n', n % 100) from generate_series(1, ${rows}) n;
    insert into unkeyed select n % 50, 'twice ' || n % 50 from generate_series(1, 3000) n;
    insert into stock."odd ""name"" 🍊" select n, n / 3.0, n / 3.0, '2020-02-29', n::bit(12), sha256(n::text::bytea), array[n, null] from generate_series(1, 500) n;
    insert into logs select date '2026-01-01' + n % 59, 'line ' || n from generate_series(1, 2000) n;
    insert into pair select n, 1 from generate_series(1, 1000) n;`
  await server.query(sql, undefined, 'shop')
}

/** Transactions that move one from a row to another: rows change their places, and the sum stays. */
async function write(server: PostgresServer, signal: AbortSignal): Promise<void> {
  await using client = await server.connect('shop')
  const dice = new Dice(seed)
  while (!signal.aborted) {
    const [one, other] = [1 + dice.roll(1000), 1 + dice.roll(1000)]
    await client.query(`begin; update pair set n = n - 1 where id = ${one};
      update pair set n = n + 1 where id = ${other}; commit`)
  }
}

async function same(source: PostgresServer, target: PostgresServer): Promise<void> {
  assert.equal(dump(target), dump(source))
  assert.deepEqual(await digests(target), await digests(source))
}

function dump(server: PostgresServer): string {
  return server.tool('pg_dump', '--schema-only', 'shop').replaceAll(/^\\(un)?restrict .*$/gm, '')
}

async function digests(server: PostgresServer): Promise<Record<string, unknown>> {
  const tables = await server.query<{ t: string }>(
    `select quote_ident(schemaname) || '.' || quote_ident(tablename) as t from pg_tables
     where schemaname in ('public', 'stock') order by 1`,
    undefined,
    'shop',
  )
  assert.ok(tables.length >= 7)
  const found: Record<string, unknown> = {}
  for (const { t } of tables) {
    const sql = `select count(*) as count, md5(string_agg(x::text, '|' order by x::text)) as sum from ${t} x`
    found[t] = await server.query(sql, undefined, 'shop')
  }
  found['numbers'] = await server.query(
    'select last_value, is_called from stock.numbers',
    undefined,
    'shop',
  )
  return found
}
