import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Dice } from '../../../../test/support/dice.ts'
import { ApplyTrial } from '../../../../test/support/postgres-apply.ts'
import { over, settings } from '../../../../test/support/postgres-follow.ts'
import { startPostgres } from '../../../../test/support/servers/postgres.ts'

const tables = `${over};
  create table items (id int primary key, n int, t text, big text); alter table items alter big set storage external;
  create table pairs (a int, b text, c numeric(12,2), primary key (a, b));
  create table names (id int primary key, name text unique, n int);
  create table amounts (k numeric primary key, v text);
  create table whole (x int, y text); alter table whole replica identity full;
  create table full_key (id int primary key, u int unique, big text); alter table full_key replica identity full; alter table full_key alter big set storage external;
  create table by_index (k int not null, v text); create unique index by_k on by_index (k); alter table by_index replica identity using index by_k;
  create table parts (id int primary key, v int) partition by range (id);
  create table parts1 partition of parts for values from (0) to (30); create table parts2 partition of parts for values from (30) to (9999)`

const compared = 'items,pairs,names,amounts,whole,full_key,by_index,parts'.split(',')

for (const together of [1, 40]) {
  test(`apply: random transactions leave the target as the source is, ${together} committed at a time`, async () => {
    await using server = await startPostgres({ settings })
    const trial = await ApplyTrial.begin(server, tables)
    const dice = new Dice(11 + together)
    await using client = await server.connect()
    for (let round = 0; round < 250; round += 1) {
      await client.query('begin')
      for (let left = dice.roll(6); left >= 0; left -= 1) await client.query(statement(dice, round))
      await client.query(dice.roll(8) === 0 ? 'rollback' : 'commit')
    }
    await trial.run({ rowsMax: 200, together })
    await trial.assertEqual(compared)
    assert.equal(trial.conflicts, 0)
    assert.ok(trial.rows > 1000)
  })
}

function statement(dice: Dice, round: number): string {
  const id = dice.roll(60)
  const text = `repeat(md5('${round}-${id}'), ${dice.roll(300)})`
  switch (dice.roll(16)) {
    case 0:
      return `insert into items values (${id}, ${round}, null, ${text}) on conflict (id) do update set n = -items.n`
    case 1:
      return `insert into items select i, i, e'tab\\t back\\\\ line\\n', null from generate_series(100, ${100 + dice.roll(200)}) i on conflict do nothing`
    case 2:
      return `update items set id = id + 1000, t = 'moved' where id = ${id} and not exists (select from items where id = ${id + 1000})`
    case 3:
      return `update items set t = null, n = n + 1 where id % 7 = ${id % 7}`
    case 4:
      return `delete from items where id % 40 = ${id % 40}`
    case 5:
      return `insert into pairs select ${id}, 'é' || i, i / 3.0 from generate_series(1, ${1 + dice.roll(9)}) i on conflict (a, b) do update set a = pairs.a + 1000 * (${round} + 1), c = null`
    case 6:
      return `insert into by_index values (${id}, ${text}) on conflict (k) do update set k = by_index.k + 100 where not exists (select from by_index o where o.k = ${id} + 100)`
    case 7:
      return `insert into whole values (${id % 5}, null), (${id % 5}, null), (${id % 3}, 'x'); update whole set y = y || 'set' where ctid = (select min(ctid) from whole); delete from whole where ctid = (select max(ctid) from whole where x = ${id % 5})`
    case 8:
      return round % 40 === 5
        ? 'truncate pairs, by_index restart identity'
        : 'savepoint a; delete from items; rollback to a; release a'
    case 9:
      // A value that wanders between rows of a second unique key.
      return `with gone as (delete from names where id = ${id} returning name) select; insert into names values (${id}, 'n${id % 20}', 0) on conflict do nothing`
    case 10:
      return `do $$ declare a text; b text; begin select name into a from names order by id limit 1; select name into b from names order by id desc limit 1; if a <> b then update names set name = 'x' where name = a; update names set name = a where name = b; update names set name = b where name = 'x'; end if; end $$`
    case 11:
      return `insert into amounts values (${id}.${id % 10}0, 'a') on conflict (k) do update set v = amounts.v || 'b'; update amounts set k = k + 0.00, v = 'c' where k = ${id}.${id % 10}; delete from amounts where k % 9 = ${id % 9}`
    case 12:
      return `insert into full_key values (${id}, ${id + 7}, ${text}) on conflict do nothing; update full_key set u = -u where id = ${id} and not exists (select from full_key o where o.u = -full_key.u); update full_key set id = id + 500 where id = ${id} and not exists (select from full_key where id = ${id + 500})`
    case 13:
      return `insert into parts values (${id}, 1) on conflict do nothing; update parts set id = id + 30 where id = ${id} and not exists (select from parts where id = ${id + 30})`
    case 14:
      return `update names set n = n + 1; update items set n = n + 1 where id = ${id}; update items set n = n + 1 where id = ${id}`
    default:
      return `update by_index set v = ${text} where k = ${id}`
  }
}
