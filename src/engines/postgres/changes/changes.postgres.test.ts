import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { Dice } from '../../../../test/support/dice.ts'
import {
  contentOf,
  follow,
  over,
  settings,
  transactionsUntilOver,
} from '../../../../test/support/postgres-follow.ts'
import {
  imagesOf,
  Mirror,
  openChangesOf,
  openReader,
  readUntil,
} from '../../../../test/support/postgres-mirror.ts'
import { startPostgres } from '../../../../test/support/servers/postgres.ts'

const signal = AbortSignal.timeout(600_000)

test('changes: a workload of all kinds read as batches rebuilds the tables, and from each position on the same rest comes', async () => {
  await using server = await startPostgres({ settings })
  await server.query(`${over};
    create table items (id int primary key, n int, t text, big text);
    create table pairs (a int, b text, c numeric(12,2), primary key (a, b));
    create table whole (x int, y text); alter table whole replica identity full;
    create table by_index (k int not null, v text); create unique index by_k on by_index (k); alter table by_index replica identity using index by_k;
    alter table items alter big set storage external`)
  const after = await follow(server)
  const dice = new Dice(7)
  await using client = await server.connect()
  for (let round = 0; round < 120; round += 1) {
    await client.query('begin')
    for (let left = dice.roll(6); left >= 0; left -= 1) await client.query(statement(dice, round))
    await client.query(dice.roll(8) === 0 ? 'rollback' : 'commit')
  }
  const options = { after, rowsMax: 50, bytesMax: 100_000 }
  const all = await transactionsUntilOver(server, options)
  const mirror = new Mirror()
  mirror.take({ kind: 'batch', transactions: all, rows: 0, sizeBytes: 0 })
  for (const [table, columns] of tables) {
    assert.deepEqual(
      mirror.content(`public.${table}`),
      await contentOf(server, table, columns),
      table,
    )
    assert.ok(mirror.content(`public.${table}`).length > 5, table)
  }
  // Every tenth, since each takes a connection.
  const ids = mirror.ids
  for (let at = 0; at < mirror.positions.length; at += 10) {
    const rest = await transactionsUntilOver(server, {
      ...options,
      after: mirror.positions[at] ?? after,
    })
    const wanted = ids.slice(at + 1)
    assert.deepEqual(
      rest
        .filter((one) => one.ends)
        .map((one) => one.id)
        .slice(0, wanted.length),
      wanted,
    )
  }
})

const tables = [
  ['items', ['id', 'n', 't', 'big']],
  ['pairs', ['a', 'b', 'c']],
  ['by_index', ['k', 'v']],
] as const

function statement(dice: Dice, round: number): string {
  const id = dice.roll(60)
  const text = `repeat(md5('${round}-${id}'), ${dice.roll(300)})`
  switch (dice.roll(10)) {
    case 0:
      return `insert into items values (${id}, ${round}, null, ${text}) on conflict (id) do update set n = -items.n`
    case 1:
      return `insert into items select i, i, 'many', null from generate_series(100, ${100 + dice.roll(200)}) i on conflict do nothing`
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
      return `insert into whole values (${id}, null); update whole set y = 'set' where x = ${id}; delete from whole where x = ${id}`
    case 8:
      return round % 30 === 5
        ? 'truncate pairs, by_index'
        : 'savepoint a; delete from items; rollback to a; release a'
    default:
      return `update by_index set v = ${text} where k = ${id}`
  }
}

test('changes: what an image does not have is absent and never NULL', async () => {
  await using server = await startPostgres({ settings })
  await server.query(`${over};
    create table t (id int primary key, n int, big text); alter table t alter big set storage external;
    create table f (id int, big text); alter table f replica identity full; alter table f alter big set storage external;
    create table g (id int primary key, d int generated always as (id * 2) stored, e int);
    create table p (id int primary key, v int) partition by range (id); create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20)`)
  const after = await follow(server)
  await server.query(`insert into t values (1, null, repeat('x', 5000))`)
  await server.query(`update t set n = 2`)
  await server.query(`update t set id = 3`)
  await server.query(`delete from t`)
  await server.query(`insert into f values (1, repeat('y', 5000)), (2, null)`)
  await server.query(`update f set id = 5 where id = 1`)
  await server.query(`delete from f where id = 2`)
  await server.query(`insert into g (id, e) values (1, 2)`)
  await server.query(`insert into p values (1, 1); update p set id = 12`)
  await server.query(`truncate t, f restart identity cascade`)
  const all = await transactionsUntilOver(server, { after })
  const seen = all.flatMap((one) =>
    one.changes.map((change) => {
      if (change.kind === 'statement') return assert.fail()
      if (change.kind === 'truncate') {
        const names = change.relations
          .map((one) => one.name[1])
          .toSorted((a = '', b = '') => a.localeCompare(b))
        return [change.kind, names.join(), change.cascade, change.restartIdentity]
      }
      return [change.kind, change.relation.name[1], ...imagesOf(change)]
    }),
  )
  const [x, y] = ['x'.repeat(5000), 'y'.repeat(5000)]
  assert.deepEqual(seen.slice(0, -1), [
    ['insert', 't', ['1', null, x]],
    ['update', 't', ['1', undefined, undefined], ['1', '2', undefined]],
    ['update', 't', ['1', undefined, undefined], ['3', '2', undefined]],
    ['delete', 't', ['3', undefined, undefined]],
    ['insert', 'f', ['1', y], ['2', null]],
    ['update', 'f', ['1', y], ['5', undefined]],
    ['delete', 'f', ['2', null]],
    ['insert', 'g', ['1', '2']],
    ['insert', 'p1', ['1', '1']],
    ['delete', 'p1', ['1', undefined]],
    ['insert', 'p2', ['12', '1']],
    ['truncate', 'f,t', true, true],
  ])
  assert.ok(all.every((one) => one.begins && one.ends))
  const times = all.map((one) => one.timeUs)
  assert.ok(times.every((us) => Math.abs(Number(us) / 1000 - Date.now()) < 3_600_000))
})

test('changes: a slot that is gone, another, ahead, or of another server is refused in clear words', async () => {
  await using server = await startPostgres({ settings })
  await server.query(over)
  const after = await follow(server)
  const read = async (options: Partial<Parameters<typeof openReader>[1]>) => {
    await using reader = await openReader(server.url, { after, ...options })
    await readUntil(reader, () => true)
  }
  await server.query(`select pg_create_logical_replication_slot('redoubt_other', 'test_decoding')`)
  await assert.rejects(read({ name: 'other' }), (error) => isFault(error, 'refused'))
  await assert.rejects(read({ name: 'nobody' }), (error) => isFault(error, 'log-lost'))
  const elsewhere = { ...after, history: after.history.replace(/^\d+/, '12345') }
  await assert.rejects(read({ after: elsewhere }), (error) => isFault(error, 'source-changed'))
  const future = { ...after, at: '00FFFFFFFFFFFFFF' }
  await assert.rejects(read({ after: future }), (error) => isFault(error, 'source-changed'))
  await server.query(`insert into over default values`)
  await server.query(`select pg_replication_slot_advance('redoubt_test', pg_current_wal_lsn())`)
  await assert.rejects(
    read({}),
    (error) => isFault(error, 'log-lost') && /ahead/.test(error.message),
  )
  const changes = await openChangesOf(server.url)
  await changes.endChanges({ name: 'test', signal })
  await changes.endChanges({ name: 'test', signal })
  const [left] = await server.query<{ count: string }>(
    `select (select count(*) from pg_publication) + (select count(*) from pg_replication_slots where slot_name = 'redoubt_test') as count`,
  )
  assert.equal(left?.count, '0')
  await assert.rejects(
    read({}),
    (error) => isFault(error, 'log-lost') && /gone/.test(error.message),
  )
})
