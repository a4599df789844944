import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Dice } from './dice.ts'
import {
  blockedTrial,
  killedTrial,
  killMigrate,
  lostTargetTrial,
  type MigratePair,
  migratedOf,
  runMigrate,
  slow,
} from './migrate-trial.ts'
import { checksums, type StartServer } from './mysql-family-harness.ts'
import { Scratch } from './scratch.ts'
import type { FamilyServer } from './servers/mysql-family.ts'

const seed = 7
const rows = 40_000

/** The whole command between two servers of the MySQL family. */
export function migrateFamilyTests(start: StartServer): void {
  test('a mover that is killed again and again brings all objects and every row, once', async () => {
    await using source = await start()
    await using target = await start()
    await killedTrial(await pairOf(source, target))
    assert.deepEqual(await target.query("show databases like 'redoubt'"), [])
  })

  test('killed beside writers, every row that nobody touched is there once, and the findings name the mixture', async () => {
    using scratch = new Scratch('migrate')
    await using source = await start()
    await using target = await start()
    const { ends } = await pairOf(source, target)
    const trial = { state: scratch.join('state'), dice: new Dice(seed), kills: 3 }
    const stop = new AbortController()
    const writing = write(source, stop.signal)
    const killed = await killMigrate({ ...trial, args: [...ends, ...slow] })
    stop.abort()
    await writing
    const { findings, positions } = migratedOf(killed.last)
    const codes = findings.map(({ code }) => code)
    assert.ok(positions.length > 1, killed.at.join())
    assert.ok(codes.includes('several-positions'), codes.join())
    const after = await checksums(target)
    const before = await checksums(source)
    for (const [table, sum] of Object.entries(before)) {
      if (!table.includes('pair')) assert.deepEqual(after[table], sum, table)
    }
    assert.deepEqual(await target.query('select count(*) as c from shop.pair'), [{ c: 1000 }])
  })

  test('a target that dies while rows come is waited for, and the copy stays at one position', async () => {
    await using source = await start()
    await using target = await start()
    await lostTargetTrial(await pairOf(source, target))
  })

  test('a target that has rows is refused, and nothing is written; a dry run tells the same', async () => {
    await using source = await start()
    await using target = await start()
    await source.query(
      'create database d; create table d.t (a int primary key); insert into d.t values (1)',
    )
    await target.query(
      'create database d; create table d.t (a int primary key); insert into d.t values (2)',
    )
    await blockedTrial(['--from', source.url, '--to', target.url])
    assert.deepEqual(await target.query('select a from d.t'), [{ a: 2 }])
    assert.deepEqual(await target.query("show databases like 'redoubt'"), [])
  })

  test('rows are not copied below triggers that would change them', async () => {
    using scratch = new Scratch('migrate')
    await using source = await start()
    await using target = await start()
    await source.query(
      "create database d; use d; create table t (a int primary key, b varchar(20)); insert into t values (1, 'as it is')",
    )
    const trigger = "create trigger `t 1` before insert on t for each row set new.b = 'changed'"
    await source.query(trigger, [], 'd')
    const ends = ['--from', source.url, '--to', target.url]
    const state = (name: string) => ['--state', scratch.join(name)]
    migratedOf(await runMigrate([...ends, '--phases', 'schema', ...state('one')]))
    const refused = await runMigrate([...ends, '--phases', 'copy', ...state('two')])
    assert.equal(refused.code, 5, refused.out)
    assert.match(refused.out, /DROP TRIGGER `d`\.`t 1`/)
    await target.query('drop trigger d.`t 1`')
    migratedOf(await runMigrate([...ends, '--phases', 'copy', ...state('two')]))
    assert.deepEqual(await target.query('select b from d.t'), [{ b: 'as it is' }])
  })

  test('what is chosen is carried under other names', async () => {
    using scratch = new Scratch('migrate')
    await using source = await start()
    await using target = await start()
    await source.query(
      'create database d; create table d.t (a int primary key, b varchar(20)); insert into d.t values (1, "x"); create table d.log_1 (a int); create database e; create table e.t (a int)',
    )
    const map = scratch.join('map')
    writeFileSync(map, 'd = "new d"\nd.t = "new d".items\n')
    const choice = ['--include', 'd', '--exclude', 'd.log_*', '--map', map]
    const ends = ['--from', source.url, '--to', target.url, '--state', scratch.join('state')]
    const migrated = migratedOf(await runMigrate([...ends, ...choice]))
    assert.deepEqual(
      migrated.tables.map((table) => table.target),
      [['new d', 'items']],
    )
    assert.deepEqual(await target.query('select * from `new d`.items'), [{ a: 1, b: 'x' }])
    assert.deepEqual(await target.query("show databases like 'e'"), [])
  })
}

async function pairOf(source: FamilyServer, target: FamilyServer): Promise<MigratePair> {
  await makeShop(source)
  return {
    ends: ['--from', source.url, '--to', target.url],
    seed,
    rows,
    same: () => same(source, target),
    marks: async () =>
      (await target.query('select 1 from redoubt.copied_chunk').catch(() => [])).length,
    loseTarget: async () => {
      await target.kill9()
      await target.start()
    },
  }
}

/** Objects of many kinds, and forty thousand orders. */
async function makeShop(server: FamilyServer): Promise<void> {
  await server.query(`create database shop; use shop;
    create table customer (id bigint unsigned auto_increment primary key, name varchar(100) not null, unique (name))
      default charset utf8mb4;
    create table orders (id bigint auto_increment primary key, customer bigint unsigned not null, total decimal(12,2),
      note varchar(200), at timestamp not null default current_timestamp, key (at), key total_note (total, note(20)),
      constraint orders_customer foreign key (customer) references customer (id)) default charset utf8mb4;
    create table unkeyed (a int, b varchar(50)) default charset latin1;
    create table \`odd "name"\` (\`a \`\`b\` int primary key, c float, d double, e date, f bit(12), g blob) default charset utf8mb4;
    create table pair (id int primary key, n int not null);
    create view big as select * from orders where total > 100;
    create view bigger as select * from big where total > 1000`)
  // Each alone: of several in one message the server keeps the semicolon as a part of the text.
  const programs = [
    "create trigger orders_note before insert on orders for each row set new.note = concat('made ', new.id)",
    'create procedure count_orders() select count(*) from orders',
    'create function twice(a int) returns int deterministic return 2 * a',
  ]
  for (const program of programs) await server.query(program, [], 'shop')
  const digits =
    '(select 0 d union all select 1 union all select 2 union all select 3 union all select 4 union all select 5 union all select 6 union all select 7 union all select 8 union all select 9)'
  const numbers = `(select 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d n from ${digits} a, ${digits} b, ${digits} c, ${digits} e, ${digits} f)`
  await server.query(`use shop;
    insert into customer (name) select concat('customer ', n) from ${numbers} x where n <= 1000 order by n;
    insert into orders (customer, total, note) select 1 + n % 1000, n / 7, repeat('n', n % 100) from ${numbers} x where n <= ${rows} order by n;
    insert into pair select n, 1 from ${numbers} x where n <= 1000;
    insert into unkeyed select n % 50, concat('twice ', n % 50) from ${numbers} x where n <= 3000;
    insert into \`odd "name"\` select n, n / 3, n / 3, '2020-02-29', n % 4096, unhex(hex(concat(n, char(0), n))) from ${numbers} x where n <= 500`)
}

/** Updates of rows where they lie, one after the other. */
async function write(server: FamilyServer, signal: AbortSignal): Promise<void> {
  await using client = await server.connect('shop')
  const dice = new Dice(seed)
  while (!signal.aborted) {
    await client.query('update pair set n = n + 1 where id = ?', [1 + dice.roll(1000)])
  }
}

async function same(source: FamilyServer, target: FamilyServer): Promise<void> {
  assert.deepEqual(await checksums(target), await checksums(source))
  // What of 5.6 can be had holds no dump program.
  if (source.version !== '5.6') assert.equal(dump(target), dump(source))
}

function dump(server: FamilyServer): string {
  const tool = server.scheme === 'mariadb' ? 'mariadb-dump' : 'mysqldump'
  const gtid = server.scheme === 'mysql' ? ['--set-gtid-purged=OFF'] : []
  const what = ['--no-data', '--routines', '--triggers', '--events', '--skip-dump-date', ...gtid]
  return server
    .tool(tool, ...server.clientArgs, ...what, '--databases', 'shop')
    .replaceAll(/^-- (Host|Server version|MariaDB dump).*\n/gm, '')
}
