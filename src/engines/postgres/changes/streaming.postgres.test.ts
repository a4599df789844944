import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type { LogBeat, Position } from '#change'
import type { Transaction } from '#change/batch'
import {
  contentOf,
  follow,
  isOver,
  over,
  settings,
  transactionsUntilOver,
} from '../../../../test/support/postgres-follow.ts'
import { Mirror, openReader, readUntil } from '../../../../test/support/postgres-mirror.ts'
import { Scratch } from '../../../../test/support/scratch.ts'
import { type PostgresServer, startPostgres } from '../../../../test/support/servers/postgres.ts'

const items = `${over}; create table items (id int primary key, t text); create table other (id int primary key, t text)`

function mirrorOf(transactions: readonly Transaction[]): Mirror {
  const mirror = new Mirror()
  mirror.take({ kind: 'batch', transactions, rows: 0, sizeBytes: 0 })
  return mirror
}

test('changes: of open transactions that are streamed nothing is given out before they commit, and nothing that was rolled back', async () => {
  await using server = await startPostgres({ settings })
  using scratch = new Scratch('stream')
  await server.query(items)
  const after = await follow(server)
  await using reader = await openReader(server.url, {
    after,
    directory: scratch.path,
    rowsMax: 700,
  })
  await using a = await server.connect()
  await using b = await server.connect()
  const rows = (from: number, to: number) =>
    `insert into items select i, repeat(md5(i::text), 6) from generate_series(${from}, ${to}) i`
  for (const client of [a, b]) await client.query('begin')
  await a.query(rows(1, 3000))
  await b.query(rows(10_001, 13_000))
  await a.query('savepoint one')
  await a.query(rows(3001, 6000))
  await a.query('savepoint two')
  // A table that the log describes within what is rolled back.
  await a.query(`insert into other select i, repeat('z', 200) from generate_series(1, 3000) i`)
  await a.query('rollback to one')
  await a.query(`delete from items where id <= 100`)
  await a.query(`insert into other values (7, 'kept')`)
  const mirror = new Mirror()
  const spooled = () => readdirSync(scratch.path).length
  await server.query('insert into over default values')
  let phase = 0
  await readUntil(reader, (item) => {
    if (item.kind === 'batch') mirror.take(item)
    // Beats come when all is read: both are here, in files, and none is given out.
    if (phase === 0 && item.kind === 'beat' && spooled() === 2) {
      assert.equal(mirror.content('public.items').length, 0)
      phase = 1
      void b
        .query('rollback')
        .then(() => a.query('commit'))
        .then(() => server.query('insert into over default values'))
    }
    return phase === 1 && mirror.content('public.over').length === 2
  })
  assert.deepEqual(mirror.content('public.items'), await contentOf(server, 'items', ['id', 't']))
  assert.deepEqual(mirror.content('public.other'), ['["7","kept"]'])
  assert.equal(mirror.content('public.items').length, 2900)
  assert.equal(spooled(), 0)
})

test('changes: with and without streaming the same transactions come, also when they are in pieces and the server breaks off', async () => {
  await using server = await startPostgres({ settings })
  using scratch = new Scratch('stream')
  await server.query(items)
  const after = await follow(server)
  for (let round = 0; round < 4; round += 1) {
    await server.query(
      `insert into items select i, repeat(md5(i::text), ${round}) from generate_series(${round * 5000}, ${round * 5000 + 4000}) i`,
    )
    await server.query(
      `update items set t = 'x' where id % 3 = ${round % 3}; delete from items where id % 5 = ${round}`,
    )
  }
  const plain = mirrorOf(await transactionsUntilOver(server, { after }))
  const streamed = mirrorOf(
    await transactionsUntilOver(server, {
      after,
      directory: scratch.path,
      rowsMax: 100,
      bytesMax: 20_000,
    }),
  )
  assert.deepEqual(streamed.ids.slice(0, plain.ids.length), plain.ids)
  const wanted = await contentOf(server, 'items', ['id', 't'])
  assert.deepEqual(plain.content('public.items'), wanted)
  assert.deepEqual(streamed.content('public.items'), wanted)
  for (const directory of [undefined, scratch.path]) {
    const broken = new Mirror()
    let left = 6
    let count = 0
    await using reader = await openReader(server.url, { after, rowsMax: 300, directory })
    const kill = `select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null`
    const kills: Promise<unknown>[] = []
    await readUntil(reader, (item) => {
      if (item.kind === 'beat') return false
      broken.take(item)
      count += 1
      if (left > 0 && count % 7 === 0) {
        left -= 1
        kills.push(server.query(kill))
      }
      return isOver(item)
    })
    await Promise.all(kills)
    assert.equal(left, 0)
    assert.deepEqual(broken.ids.slice(0, plain.ids.length), plain.ids)
    assert.deepEqual(broken.content('public.items'), wanted)
  }
})

test('changes: a reader that is not pulled keeps its connection', async () => {
  await using server = await startPostgres({ settings })
  await server.query(items)
  const after = await follow(server)
  await server.query(`insert into items values (1, 'a')`)
  // A machine that stands still for longer than the server waits breaks any connection: then the server waits longer.
  let kept = false
  for (let waitMs = 1000; !kept && waitMs <= 16_000; waitMs *= 4) {
    await server.query(`alter system set wal_sender_timeout = '${waitMs}ms'`)
    await server.query('select pg_reload_conf()')
    kept = await keepsConnection(server, after, waitMs)
  }
  assert.ok(kept, 'the connection was lost each time')
})

/** Whether the first batch's reader may rest for three times what the server waits for a word of ours. */
async function keepsConnection(
  server: PostgresServer,
  after: Position,
  waitMs: number,
): Promise<boolean> {
  await using reader = await openReader(server.url, { after })
  const pids = new Set<string>()
  let batches = 0
  for await (const item of reader.read({ signal: AbortSignal.timeout(600_000) })) {
    const [row] = await server.query<{ pid: string }>(
      `select active_pid as pid from pg_replication_slots`,
    )
    pids.add(String(row?.pid))
    if (item.kind !== 'batch') {
      if (batches > 0) break
      continue
    }
    batches += 1
    await server.query(`select pg_sleep(${(3 * waitMs) / 1000})`)
  }
  return pids.size === 1
}

test('changes: an idle source gives beats that can be resumed from', async () => {
  await using server = await startPostgres({ settings })
  await server.query(items)
  const after = await follow(server)
  await server.query(`insert into items values (1, 'a')`)
  await using reader = await openReader(server.url, { after })
  let beat: LogBeat | undefined
  let batches = 0
  for await (const item of reader.read({ signal: AbortSignal.timeout(600_000) })) {
    if (item.kind === 'batch') {
      batches += 1
      const [position] = item.transactions.flatMap((one) => one.position ?? [])
      if (position) await reader.ack(position)
    } else if (batches > 0) {
      beat = item
      break
    }
  }
  assert.ok(beat && beat.at > after.at)
  assert.ok(Math.abs(Number(beat.timeUs) / 1000 - Date.now()) < 3_600_000)
  const moved = async () => {
    const [slot] = await server.query<{ moved: boolean }>(
      `select confirmed_flush_lsn > $1::pg_lsn as moved from pg_replication_slots`,
      [`${Number.parseInt(after.at.slice(0, 8), 16).toString(16)}/${after.at.slice(8)}`],
    )
    return slot?.moved === true
  }
  // The server takes our word in its own time.
  while (!(await moved())) await delay(20)
  await reader[Symbol.asyncDispose]()
  const rest = await transactionsUntilOver(server, {
    after: { history: beat.history, at: beat.at },
  })
  assert.equal(rest.flatMap((one) => one.changes).length, 1)
})

test('changes: a prepared transaction comes when it commits, an origin is told, and what is not selected moves the position only', async () => {
  await using server = await startPostgres({
    settings: { ...settings, max_prepared_transactions: '4' },
  })
  await server.query(items)
  const after = await follow(server)
  await server.query(`begin; insert into items values (1, 'prepared'); prepare transaction 'p'`)
  await server.query(`begin; insert into items values (2, 'gone'); prepare transaction 'q'`)
  await server.query(`insert into items values (3, 'between')`)
  await server.query(`rollback prepared 'q'`)
  await server.query(`commit prepared 'p'`)
  await using client = await server.connect()
  await client.query(`select pg_replication_origin_create('far away')`)
  await client.query(`select pg_replication_origin_session_setup('far away')`)
  await client.query(`insert into items values (4, 'from afar')`)
  await server.query(`insert into other values (1, 'unwanted')`)
  const all = await transactionsUntilOver(server, { after, accepts: (name) => name[1] !== 'other' })
  const mirror = mirrorOf(all)
  assert.deepEqual(
    all.filter((one) => one.changes.length > 0).map((one) => [one.origin, one.changes.length]),
    [
      [undefined, 1],
      [undefined, 1],
      ['far away', 1],
      [undefined, 1],
    ],
  )
  assert.deepEqual(mirror.content('public.items'), [
    '["1","prepared"]',
    '["3","between"]',
    '["4","from afar"]',
  ])
  assert.equal(mirror.tables.has('public.other'), false)
  const unwanted = all.filter((one) => one.changes.length === 0)
  assert.ok(unwanted.length >= 1 && unwanted.every((one) => one.position))
})

test('changes: nothing is missed and nothing comes twice when the server is killed while it sends', async () => {
  await using server = await startPostgres({ settings })
  using scratch = new Scratch('stream')
  await server.query(items)
  const after = await follow(server)
  for (let round = 0; round < 3; round += 1) {
    await server.query(
      `insert into items select i, repeat(md5(i::text), 3) from generate_series(${round * 20_000 + 1}, ${round * 20_000 + 20_000}) i`,
    )
    await server.query(`update items set t = 'x' where id % 5 = ${round}`)
  }
  await server.query('insert into over default values')
  const mirror = new Mirror()
  await using reader = await openReader(server.url, {
    after,
    rowsMax: 500,
    directory: scratch.path,
  })
  let kills = 0
  let count = 0
  for await (const item of reader.read({ signal: AbortSignal.timeout(600_000) })) {
    if (item.kind === 'beat') continue
    mirror.take(item)
    if (isOver(item)) break
    count += 1
    if (count % 40 !== 10 || kills === 3) continue
    kills += 1
    await server.kill9()
    await server.start()
  }
  assert.equal(kills, 3)
  assert.deepEqual(mirror.content('public.items'), await contentOf(server, 'items', ['id', 't']))
})
