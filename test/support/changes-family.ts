import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  caughtUpTrial,
  type ChangesPair,
  type Writer,
  killedChangesTrial,
  lostTargetOfChangesTrial,
} from './changes-trial.ts'
import { Dice } from './dice.ts'
import { checksums, type StartServer } from './mysql-family-harness.ts'
import type { FamilyServer } from './servers/mysql-family.ts'

const largeRows = 25_000

/** Changes between two servers of the MySQL family, through the whole command. */
export function changesFamilyTests(start: StartServer): void {
  test('a mover that is killed beside writers applies each transaction once', async () => {
    await using source = await start()
    await using target = await start()
    await killedChangesTrial(await pairOf(source, target), 6)
  })

  test('stopped beside writers it goes on, and ends when it has caught up', async () => {
    await using source = await start()
    await using target = await start()
    await caughtUpTrial(await pairOf(source, target))
  })

  test('a target that dies while changes come is waited for', async () => {
    await using source = await start()
    await using target = await start()
    await lostTargetOfChangesTrial(await pairOf(source, target))
  })
}

async function pairOf(source: FamilyServer, target: FamilyServer): Promise<ChangesPair> {
  // Else what is altered before its changes were read cannot be followed (5.6 never tells).
  const named = source.version !== '5.6'
  if (named) await source.query("set global binlog_row_metadata = 'FULL'")
  await makeTables(source)
  return {
    ends: ['--from', source.url, '--to', target.url],
    openWriter: (writer) => openWriter(source, writer),
    writeLarge: () => writeLarge(source),
    define: named ? () => define(source) : undefined,
    applies: async () =>
      (await target.query('select 1 from redoubt.applied_mark').catch(() => [])).length > 0,
    loseTarget: async () => {
      await target.kill9()
      await target.start()
    },
    same: () => same(source, target),
  }
}

const digits =
  '(select 0 d union all select 1 union all select 2 union all select 3 union all select 4 union all select 5 union all select 6 union all select 7 union all select 8 union all select 9)'
const numbers = `(select 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d n from ${digits} a, ${digits} b, ${digits} c, ${digits} e, ${digits} f) numbers`

/** \`hit\` has no key: a transaction that came twice would leave two of its rows. */
async function makeTables(server: FamilyServer): Promise<void> {
  await server.query(`create database shop; use shop;
    create table customer (id int primary key, name varchar(100) not null, unique (name)) default charset utf8mb4;
    create table orders (id bigint auto_increment primary key, customer int not null, total decimal(12,2), note text,
      at timestamp(6) not null default current_timestamp(6), key (customer), constraint orders_customer foreign key (customer)
      references customer (id)) default charset utf8mb4;
    create table line (id bigint auto_increment primary key, orders bigint not null, what varchar(20),
      constraint line_orders foreign key (orders) references orders (id) on delete cascade) default charset utf8mb4;
    create table counter (id int primary key, n bigint not null);
    create table hit (writer int, seq int);
    create table bulk (id int primary key, body varchar(50)) default charset latin1;
    create table audit (id bigint auto_increment primary key, said text) default charset utf8mb4;
    create view big as select * from orders where total > 100`)
  const trigger =
    'create trigger orders_note before insert on orders for each row insert into audit (said) values (new.note)'
  await server.query(trigger, [], 'shop')
  await server.query(`use shop;
    insert into customer select n, concat('customer ', n) from ${numbers} where n <= 200;
    insert into orders (customer, total, note) select 1 + n % 200, n / 7, repeat('n', n % 100) from ${numbers} where n <= 5000;
    insert into counter select n, 0 from ${numbers} where n <= 5;
    insert into bulk select n, concat('row ', n) from ${numbers} where n <= 500`)
}

/** Each transaction inserts, changes and takes away, counts on a hot row, and leaves one row in \`hit\`. */
async function openWriter(server: FamilyServer, writer: number): Promise<Writer> {
  const client = await server.connect('shop')
  const dice = new Dice(writer + 1)
  const write = async (seq: number) => {
    const customer = 1 + dice.roll(200)
    const sql = `start transaction;
      insert into orders (customer, total, note) values (${customer}, ${dice.roll(10_000)}, 'by ${writer}');
      insert into line (orders, what) values (last_insert_id(), 'one');
      update orders set total = total + 1, note = repeat('u', ${dice.roll(3000)}) where id = ${1 + dice.roll(5000)};
      delete from orders where id = ${1 + dice.roll(8000)} and id % 7 = 0;
      update counter set n = n + 1 where id = ${1 + dice.roll(5)};
      update customer set name = concat('customer ', id, '.', ${seq}) where id = ${customer};
      insert into hit values (${writer}, ${seq});
      ${dice.roll(10) === 0 ? 'rollback' : 'commit'}`
    // Writers may deadlock with one another: then none of it is there.
    await client.query(sql).catch((error: { readonly errno?: number }) => {
      if (error.errno !== 1213 && error.errno !== 1205) throw error
      return client.query('rollback')
    })
  }
  return { write, [Symbol.asyncDispose]: async () => client[Symbol.asyncDispose]() }
}

async function writeLarge(server: FamilyServer): Promise<void> {
  await server.query(`use shop; start transaction;
    insert into bulk select 1000 + n, concat('large ', n) from ${numbers} where n <= ${largeRows};
    update bulk set body = concat(body, '.') where id <= 300;
    insert into hit select 99, count(*) from hit where writer = 99; commit`)
}

/** What was altered is written to before and behind. */
async function define(server: FamilyServer): Promise<void> {
  await server.query(`use shop; alter table bulk add column more int not null default 7, add key (body);
    update bulk set more = id where id <= 100;
    create table late (id int primary key, said varchar(20)) default charset utf8mb4;
    insert into late values (1, 'one'), (2, 'two');
    create table gone (id int primary key); insert into gone values (1); truncate table gone; drop table gone;
    rename table late to later; update later set said = 'three' where id = 2`)
}

async function same(source: FamilyServer, target: FamilyServer): Promise<void> {
  assert.deepEqual(await checksums(target), await checksums(source))
  const twice = 'select writer, seq from shop.hit group by writer, seq having count(*) > 1'
  assert.deepEqual(await target.query(twice), [])
  assert.deepEqual(await target.query("show databases like 'redoubt'"), [])
  const triggers =
    "select trigger_name as n from information_schema.triggers where trigger_schema = 'shop'"
  assert.deepEqual(await target.query(triggers), [{ n: 'orders_note' }])
}
