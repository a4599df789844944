import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { isFault } from '#base/faults'
import type { Target } from '#change'
import type { RestoreResult } from '#engines'
import { World } from '../../../test/support/postgres-world.ts'
import { type PostgresServer, startPostgres } from '../../../test/support/servers/postgres.ts'
import { postgres } from './postgres.ts'

const shop = 'shop 🛒 "x"'

const schema = `
  create schema "odd ""s""";
  create type mood as enum ('sad', 'it''s ok');
  create domain positive as int check (value > 0);
  create type pair as (a int, b mood);
  create extension pg_trgm;
  create function double(int) returns int language sql immutable return $1 * 2;
  create table customers (
    id serial primary key, name text collate "C" not null default 'nobody', m mood, p positive, c pair,
    twice int generated always as (double(p)) stored, unique (name, m));
  create index on customers using gin (name gin_trgm_ops);
  create table "odd ""s""".orders
    (id bigint generated always as identity primary key, customer int not null references customers on delete cascade,
     total numeric(12, 2) check (total >= 0), at timestamptz default now(), blob bytea, note text);
  create table parted (a int, b text, primary key (a)) partition by range (a);
  create table parted_1 partition of parted for values from (0) to (100);
  create table parted_2 partition of parted for values from (100) to (1000);
  create view totals as select customer, sum(total) from "odd ""s""".orders group by 1;
  create materialized view counted as select count(*) from customers;
  create function touch() returns trigger language plpgsql as $$ begin new.note := coalesce(new.note, '') || '!'; return new; end $$;
  create trigger touched before update on "odd ""s""".orders for each row execute function touch();
  alter table customers enable row level security;
  create policy own on customers for select to public using (id > 0);
  insert into customers (name, m, p, c) select 'name ' || g, 'it''s ok', g, (g, 'sad')::pair from generate_series(1, 500) g;
  insert into "odd ""s""".orders (customer, total, blob, note)
    select 1 + g % 500, g * 1.5, decode(md5(g::text), 'hex'), repeat('n', g % 300) from generate_series(1, 3000) g;
  insert into parted select g, 'p' || g from generate_series(1, 500) g;
  refresh materialized view counted;`

describe('restore --only', { concurrency: false }, () => {
  let world: World
  let goal: PostgresServer
  let target: Target
  let truth: Record<string, unknown>[]

  const digest = (server: PostgresServer, database: string) =>
    server.query(
      `select (select sum(hashtextextended(c::text, 0)) from customers c) as customers,
         (select sum(hashtextextended(o::text, 0)) from "odd ""s""".orders o) as orders,
         (select sum(hashtextextended(p::text, 0)) from parted p) as parted`,
      undefined,
      database,
    )

  before(async () => {
    world = await World.begin()
    const { server } = world
    await server.query(`create database "shop 🛒 ""x"""`)
    await server.query(schema, undefined, shop)
    truth = await digest(server, shop)
    await world.caughtUp()
    target = { kind: 'time', timeUs: world.log.commits.at(-1)?.timeUs ?? 0n }
    await server.query('delete from "odd ""s""".orders; drop table parted', undefined, shop)
    await world.caughtUp()
    goal = await startPostgres({ version: server.version })
  })
  after(async () => {
    await goal[Symbol.asyncDispose]()
    await world[Symbol.asyncDispose]()
  })

  const restore = (to: string, only: readonly string[], force = false): Promise<RestoreResult> =>
    postgres.restore(world.request(target, { to, only, force, start: false }))

  test('a database comes back into another server with all that is in it', async () => {
    const result = await restore(goal.url.replace(/\/postgres$/, ''), ['shop*'])
    assert.deepEqual(result.next, [])
    assert.deepEqual(await digest(goal, shop), truth)
    const objects = `select relkind, relname from pg_class c join pg_namespace n on n.oid = relnamespace
      where nspname in ('public', 'odd "s"') order by 1, 2`
    const [source, made] = await Promise.all([
      world.server.query(`${objects}`, undefined, shop),
      goal.query(objects, undefined, shop),
    ])
    const without = source.filter((row) => !String(row['relname']).startsWith('parted'))
    assert.deepEqual(
      made.filter((row) => !String(row['relname']).startsWith('parted')),
      without,
    )
    // The sequences go on where they were, the foreign key cascades, the trigger fires, the policy stands.
    const [row] = await goal.query(
      `insert into customers (name, m, p) values ('new', 'sad', 1) returning id, twice`,
      undefined,
      shop,
    )
    // A recovery skips up to 32 values of a sequence, as after any crash.
    const id = Number(row?.['id'])
    assert.ok(id > 500 && id < 540, String(id))
    assert.equal(row?.['twice'], 2)
    const [order] = await goal.query(
      `insert into "odd ""s""".orders (customer, total) values (${id}, 1) returning id::text`,
      undefined,
      shop,
    )
    assert.ok(Number(order?.['id']) > 3000)
    await goal.query(`delete from customers where id = ${id}`, undefined, shop)
    assert.deepEqual(await digest(goal, shop), truth)
    const policies = await goal.query('select policyname from pg_policies', undefined, shop)
    assert.deepEqual(policies, [{ policyname: 'own' }])
    assert.deepEqual(await goal.query('select * from counted', undefined, shop), [{ count: '500' }])
  })

  test('a deleted table comes back into the live source, refused while it holds rows', async () => {
    const { server } = world
    const only = ['"shop 🛒 ""x""".*.orders']
    const to = server.url.replace(/\/postgres$/, '')
    await restore(to, only)
    assert.deepEqual((await digestOrders(server))[0], { orders: truth[0]?.['orders'] })
    await assert.rejects(
      restore(to, only),
      (error) => isFault(error, 'refused') && /holds rows/.test(error.message),
    )
    await server.query('update "odd ""s""".orders set total = 0', undefined, shop)
    await restore(to, only, true)
    assert.deepEqual((await digestOrders(server))[0], { orders: truth[0]?.['orders'] })
  })

  const digestOrders = (server: PostgresServer) =>
    server.query(
      `select sum(hashtextextended(o::text, 0)) as orders from "odd ""s""".orders o`,
      undefined,
      shop,
    )

  test('a table whose parent is not there is made, and what cannot be made is said', async () => {
    await goal.query('create database empty')
    const result = await restore(goal.urlOf('empty'), [
      `"${shop.replaceAll('"', '""')}"."odd ""s""".orders`,
    ])
    assert.match(result.next.join('\n'), /orders_customer_fkey.*could not be made/)
    const [row] = await goal.query('select count(*) from "odd ""s""".orders', undefined, 'empty')
    assert.equal(row?.['count'], '3000')
  })

  test('a name that was not there is told', async () => {
    await assert.rejects(
      restore(goal.url, ['nowhere.public.t']),
      (error) => isFault(error, 'missing') && /nowhere/.test(error.message),
    )
  })
})
