import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { isFault } from '#base/faults'
import type { Position } from '#change'
import type { Applier } from '#change/apply'
import { Dice } from '../../../../test/support/dice.ts'
import { ApplyTrial, Driver } from '../../../../test/support/postgres-apply.ts'
import { over, settings } from '../../../../test/support/postgres-follow.ts'
import { type PostgresServer, startPostgres } from '../../../../test/support/servers/postgres.ts'

const tables = `${over};
  create table items (id int primary key, n int, t text, big text); alter table items alter big set storage external;
  create table pairs (a int, b text, c numeric(12,2), primary key (a, b));
  create table names (id int primary key, name text unique, n int);
  create table amounts (k numeric primary key, v text);
  create table whole (x int, y text); alter table whole replica identity full;
  create table full_key (id int primary key, u int unique, big text); alter table full_key replica identity full; alter table full_key alter big set storage external;
  create table by_index (k int not null, v text); create unique index by_k on by_index (k); alter table by_index replica identity using index by_k;
  create table wanders (id int primary key, u int unique, big text); alter table wanders alter big set storage external;
  create table parts (id int primary key, v int) partition by range (id);
  create table parts1 partition of parts for values from (0) to (30); create table parts2 partition of parts for values from (30) to (9999)`

const compared = 'items,pairs,names,amounts,whole,full_key,by_index,wanders,parts'.split(',')

for (const together of [1, 40]) {
  test(`apply: random transactions leave the target as the source is, ${together} committed at a time`, async () => {
    await using server = await startPostgres({ settings })
    const trial = await ApplyTrial.begin(server, tables)
    await write(server, new Dice(11 + together), 250)
    await trial.run({ rowsMax: 200, together })
    await trial.assertEqual(compared, 0)
    await trial.assertEqual(compared.filter((name) => name !== 'pairs' && name !== 'by_index'))
    assert.equal(trial.conflicts, 0)
    assert.ok(trial.rows > 1000)
  })
}

test('apply: changes that the copy brought already, and those that it brought ahead of, end as the source is', async () => {
  await using server = await startPostgres({ settings })
  const keyed = tables.replace(/create table whole.*\n/, '')
  const trial = await ApplyTrial.begin(server, keyed)
  const dice = new Dice(5)
  const known = compared.filter((name) => name !== 'whole')
  const without = (sql: string) => !sql.includes('whole')
  await write(server, dice, 120, without)
  // Some tables as of now, some as of later, one as of the beginning.
  const copy = async (names: readonly string[]) => {
    for (const name of names) {
      const [all] = await trial.source(
        `select coalesce(json_agg(whole_row), '[]')::text as rows from ${name} whole_row`,
      )
      await server.query(
        `insert into ${name} select * from json_populate_recordset(null::${name}, $1)`,
        [all?.['rows']],
        'target',
      )
    }
  }
  await copy(['items', 'pairs', 'wanders'])
  await write(server, dice, 120, without)
  await copy(['names', 'full_key', 'by_index', 'parts'])
  await write(server, dice, 20, without)
  await trial.run({ converge: true, rowsMax: 300, together: 7 })
  await trial.assertEqual(known, 0)
  assert.equal(trial.conflicts, 0)
})

test('apply: a copied row that is in the way of an earlier change is there again in the end, its large value too', async () => {
  await using server = await startPostgres({ settings })
  const trial = await ApplyTrial.begin(
    server,
    `${over}; create table s (id int primary key, u int unique, f float8, big text); alter table s alter big set storage external;
     insert into s values (2, 6, '-0', repeat('x', 5000))`,
  )
  await trial.source(`insert into s values (3, 5, 1, 'c'); delete from s where id = 3`)
  await trial.source(`update s set u = 5 where id = 2`)
  await trial.target(`update s set u = 5 where id = 2`)
  await trial.run({ converge: true })
  await trial.assertEqual(['s'])
  assert.deepEqual(await trial.target('select from redoubt.displaced_row'), [])
})

test('apply: what was written is there once, wherever the session dies', async () => {
  await using server = await startPostgres({ settings })
  const trial = await ApplyTrial.begin(
    server,
    `${over}; create table t (id int primary key, n int)`,
  )
  const signal = AbortSignal.timeout(600_000)
  await trial.source('insert into t values (1, 0)')
  for (let round = 1; round <= 30; round += 1) await trial.source('update t set n = n + 1')
  await trial.source('insert into over default values')
  const mark = async (): Promise<Position | undefined> => {
    await using applier = await trial.openApplier()
    return (await applier.applied({ signal }))?.low
  }
  assert.equal(await mark(), undefined)
  const dice = new Dice(3)
  let died = 0
  for (let isOver = false; !isOver; ) {
    // The server may notice late that those of before are gone: none of them is meant.
    while ((await lanePids(trial)).length > 0) await delay(10)
    await using applier = await trial.openApplier()
    const before = (await applier.applied({ signal }))?.low
    await using reader = await trial.openReader({}, before ?? trial.after)
    const [pid] = await lanePids(trial)
    let left = 1 + dice.roll(8)
    try {
      for await (const item of reader.read({ signal })) {
        if (item.kind === 'beat') continue
        for (const one of item.transactions) {
          left -= 1
          const kill = async () => {
            if (left > 0) return
            left = 1 + dice.roll(8)
            await trial.source(`select pg_terminate_backend(${pid})`)
          }
          const single = { ...item, transactions: [one] }
          // Before it is written, in the middle of it, or while it commits.
          const when = died < 2 ? 0 : dice.roll(3)
          if (when === 0) await kill()
          const [taken] = await Promise.allSettled([
            new Driver(applier).take(single),
            when > 0 ? kill() : undefined,
          ])
          if (taken.status === 'rejected') throw taken.reason
        }
        const [there] = await trial.target('select from over')
        if (there) isOver = true
        if (isOver) break
      }
    } catch (error) {
      if (!isFault(error, 'unreachable')) throw error
      died += 1
      assert.ok(!isOver)
    }
    await assertMarkTells(trial, await mark())
  }
  assert.ok(died >= 2)
  await trial.assertEqual(['t'])
})

/** The mark is of the transaction whose effect is the last that is seen. */
async function assertMarkTells(trial: ApplyTrial, mark: Position | undefined): Promise<void> {
  const [row] = await trial.target('select n from t')
  await using reader = await trial.openReader()
  let n: number | undefined
  if (mark) {
    reading: for await (const item of reader.read({ signal: AbortSignal.timeout(600_000) })) {
      if (item.kind === 'beat') continue
      for (const one of item.transactions) {
        if (one.changes.some((change) => 'relation' in change && change.relation.name[1] === 't')) {
          n = n === undefined ? 0 : n + 1
        }
        if (one.position?.at === mark.at) break reading
      }
    }
  }
  assert.equal(row?.['n'], n)
}

async function lanePids(trial: ApplyTrial): Promise<readonly number[]> {
  const rows = await trial.source(
    `select pid from pg_stat_activity where application_name like 'redoubt apply %' order by backend_start desc`,
  )
  return rows.map((row) => Number(row['pid']))
}

test('apply: a process that was thought dead commits no more once another has taken over', async () => {
  await using server = await startPostgres({ settings })
  const trial = await ApplyTrial.begin(server, `${over}; create table t (id int primary key)`)
  const signal = AbortSignal.timeout(600_000)
  const low = { ...trial.after, at: 'FFFFFFFFFFFFFFF0' }
  const begin = async (applier: Applier) => {
    await trial.source('insert into t values (1); delete from t')
    await using reader = await trial.openReader()
    for await (const item of reader.read({ signal })) {
      if (item.kind === 'beat') continue
      const [change] = item.transactions.flatMap((one) => one.changes)
      if (change?.kind !== 'insert') continue
      await applier.prepare(change.relation, { signal })
      await applier.lanes[0]?.write([change], { converge: false, signal })
      return
    }
  }
  await using first = await trial.openApplier({ lanes: 3 })
  await begin(first)
  await using second = await trial.openApplier()
  await assert.rejects(
    async () => first.lanes[0]?.commit({ low, beyond: [] }, { signal }),
    (error) => isFault(error, 'unreachable'),
  )
  assert.equal(await second.applied({ signal }), undefined)
  await begin(second)
  // A session that was not ended, since another role had opened it.
  await trial.target(`update redoubt.applied_change set epoch = epoch + 1`)
  await assert.rejects(
    async () => second.lanes[0]?.commit({ low, beyond: [] }, { signal }),
    (error) => isFault(error, 'locked') && error.recovery === 'stop',
  )
  assert.deepEqual(await trial.target('select from t'), [])
  await using third = await trial.openApplier({ lanes: 2 })
  const at = (text: string) => text.padStart(16, '0')
  await third.lanes[0]?.commit(
    { low: { ...low, at: at('10') }, beyond: [at('12'), at('20')] },
    { signal },
  )
  await third.lanes[1]?.commit(
    { low: { ...low, at: at('15') }, beyond: [at('12'), at('17')] },
    { signal },
  )
  const mark = await third.applied({ signal })
  assert.deepEqual(mark, { low: { ...low, at: at('15') }, beyond: [at('17'), at('20')] })
  await third.lanes[0]?.commit({ low: { history: 'another', at: at('1') }, beyond: [] }, { signal })
  assert.deepEqual((await third.applied({ signal }))?.low, { history: 'another', at: at('1') })
  await trial.endApply()
  assert.deepEqual(await trial.target(`select from pg_namespace where nspname = 'redoubt'`), [])
  await trial.endApply()
})

async function write(
  server: PostgresServer,
  dice: Dice,
  rounds: number,
  wanted: (sql: string) => boolean = () => true,
): Promise<void> {
  await using client = await server.connect()
  for (let round = 0; round < rounds; round += 1) {
    await client.query('begin')
    for (let left = dice.roll(6); left >= 0; left -= 1) {
      const sql = statement(dice, round)
      if (wanted(sql)) await client.query(sql)
    }
    await client.query(dice.roll(8) === 0 ? 'rollback' : 'commit')
  }
}

function statement(dice: Dice, round: number): string {
  const id = dice.roll(60)
  const text = `repeat(md5('${round}-${id}'), ${dice.roll(300)})`
  switch (dice.roll(18)) {
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
    case 15:
      return `insert into wanders values (${id}, ${id}, repeat('big', 2000)) on conflict do nothing; update wanders set u = u - 100 where id = ${id} and not exists (select from wanders o where o.u = wanders.u - 100)`
    case 16:
      return `do $$ declare a wanders; b wanders; begin select * into a from wanders order by id limit 1; select * into b from wanders order by id desc limit 1; if a.id <> b.id then update wanders set u = 9999 where id = a.id; update wanders set u = a.u where id = b.id; update wanders set u = b.u where id = a.id; end if; if b.id % 5 = 0 then delete from wanders where id = b.id; insert into wanders values (b.id + 1, a.u + 1000, 'new') on conflict do nothing; end if; end $$`
    case 14:
      return `update names set n = n + 1; update items set n = n + 1 where id = ${id}; update items set n = n + 1 where id = ${id}`
    default:
      return `update by_index set v = ${text} where k = ${id}`
  }
}
