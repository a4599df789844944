import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import type { LogBlock, LogReader, Position } from '#change'
import { MemoryLog } from '../../../test/support/memory-log.ts'
import { restored, World } from '../../../test/support/postgres-world.ts'
import { giveToServerUser } from '../../../test/support/servers/process.ts'
import { type PostgresServer, startPostgres } from '../../../test/support/servers/postgres.ts'
import { parseLsn, toAt } from './lsn.ts'
import { postgres } from './postgres.ts'

/** A standby of the world's server, made from its base. */
async function startStandby(world: World): Promise<PostgresServer> {
  const folder = world.folder()
  await world.base.layOut(folder, {})
  writeFileSync(path.join(folder, 'standby.signal'), '')
  giveToServerUser(folder)
  const source = `host=127.0.0.1 port=${world.server.port} user=postgres password=elephant-secret`
  return startPostgres({
    version: world.server.version,
    dataDir: folder,
    settings: { primary_conninfo: source, max_prepared_transactions: '5' },
  })
}

async function replayed(standby: PostgresServer, at: string): Promise<void> {
  for (;;) {
    const [row] = await standby.query<{ lsn: string }>('select pg_last_wal_replay_lsn() as lsn')
    if (toAt(parseLsn(row?.lsn ?? '0/0')) >= at) return
    await delay(10)
  }
}

async function insert(server: PostgresServer, from: number, to: number): Promise<string> {
  for (let value = from; value <= to; value += 1)
    await server.query(`insert into t values (${value})`)
  const [row] = await server.query<{ lsn: string }>('select pg_current_wal_flush_lsn() as lsn')
  return toAt(parseLsn(row?.lsn ?? ''))
}

async function values(world: World, target: Parameters<World['request']>[0]): Promise<number[]> {
  return restored(world.request(target), async (client) => {
    const { rows } = await client.query('select a from t order by a')
    return rows.map((row: { a: number }) => row.a)
  })
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

test('the log is followed over a promotion, and every moment on either side can be restored', async () => {
  await using world = await World.begin()
  const { server } = world
  await server.query('create table t (a int)')
  await using standby = await startStandby(world)
  const first = await insert(server, 1, 20)
  await world.caughtUp()
  await replayed(standby, first)
  await server.stop()
  await standby.query('select pg_promote()')
  await world.stopArchiving()
  const onFirst = world.log.commits.length
  await world.archive(standby.url)
  const last = await insert(standby, 21, 40)
  while (
    world.log.durable()?.history.endsWith('-00000001') ||
    (world.log.durable()?.at ?? '') < last
  ) {
    await delay(10)
  }
  assert.ok(world.log.names.includes('00000002.history'), world.log.names.join())
  assert.deepEqual(await values(world, { kind: 'latest' }), upTo(40))
  assert.deepEqual(await values(world, { kind: 'position', at: first }), upTo(20))
  const before = world.log.commits[onFirst - 5]
  assert.ok(before)
  assert.deepEqual(await values(world, { kind: 'time', timeUs: before.timeUs }), upTo(16))
  const after = world.log.commits.at(-5)
  assert.ok(after)
  assert.deepEqual(await values(world, { kind: 'time', timeUs: after.timeUs }), upTo(36))
})

test('a restore into the past begins a timeline that is in no archive yet, and all lives stay apart', async () => {
  await using world = await World.begin()
  await world.server.query('create table t (a int)')
  const kept = await insert(world.server, 1, 10)
  await insert(world.server, 11, 15)
  await world.caughtUp()
  await world.stopArchiving()
  await world.server.stop('immediate')
  const target = { kind: 'position', at: kept } as const
  const goBack = async () => {
    const to = world.folder()
    await postgres.restore(world.request(target, { to, start: false }))
    giveToServerUser(to)
    const server = await startPostgres({ version: world.server.version, dataDir: to })
    while ((await server.query('select pg_is_in_recovery() as r'))[0]?.['r']) await delay(20)
    return server
  }
  const timelineOf = async (server: PostgresServer) => {
    const [row] = await server.query<{ file: string }>(
      'select pg_walfile_name(pg_current_wal_lsn()) as file',
    )
    return row?.file.slice(0, 8)
  }
  await using second = await goBack()
  assert.equal(await timelineOf(second), '00000002')
  await world.archive(second.url)
  const last = await insert(second, 101, 105)
  const archived = () => world.log.durable()
  while (!archived()?.history.endsWith('2') || (archived()?.at ?? '') < last) await delay(10)
  await world.stopArchiving()
  const commit = world.log.commits.at(-2)
  assert.ok(commit)
  const life = [...upTo(10), 101, 102, 103, 104, 105]
  assert.deepEqual(await values(world, { kind: 'latest' }), life)
  assert.deepEqual(await values(world, { kind: 'time', timeUs: commit.timeUs }), life.slice(0, -1))
  assert.deepEqual(await values(world, target), upTo(10))
  await using third = await goBack()
  assert.equal(await timelineOf(third), '00000003')
})

test('an archive and a base that begin on a later timeline are enough', async () => {
  const server = await startPostgres({ initdb: ['--wal-segsize=1'] })
  await server.stop()
  writeFileSync(path.join(server.dataDir, 'standby.signal'), '')
  giveToServerUser(server.dataDir)
  await server.start()
  await server.query('select pg_promote()')
  await using world = new World(server)
  await world.archive()
  await server.query('create table t (a int)')
  await world.takeBase()
  await insert(server, 1, 10)
  await world.caughtUp()
  assert.equal(world.log.names[0], '00000002.history')
  assert.deepEqual(await values(world, { kind: 'latest' }), upTo(10))
  // Also where the archive lost that file: the base has it.
  const without: LogReader = {
    segments: (first) => world.log.segments(first),
    read: async (segment, options) =>
      segment.endsWith('.history') ? undefined : world.log.read(segment, options),
  }
  await restored(world.request({ kind: 'latest' }, { archive: without }), async (client) => {
    const { rows } = await client.query('select count(*)::int as n from t')
    assert.deepEqual(rows, [{ n: 10 }])
  })
})

test('one reader follows a standby that is promoted under it', async () => {
  await using world = await World.begin()
  await world.server.query('create table t (a int)')
  await using standby = await startStandby(world)
  await using engine = await postgres.open(standby.url, {
    signal: AbortSignal.timeout(600_000),
    log: silentLog,
  })
  await using source = await engine.openLog({ log: silentLog, name: 'b', durability: 'async' })
  const log = new MemoryLog()
  const signal = AbortSignal.timeout(600_000)
  await replayed(standby, await insert(world.server, 1, 5))
  let wanted = '~'
  let done: Promise<unknown> | undefined
  for await (const item of source.read(undefined, { signal })) {
    if (item.kind === 'block') await log.append(item)
    done ??= (async () => {
      await world.server.stop('immediate')
      await standby.query('select pg_promote()')
      wanted = await insert(standby, 6, 12)
    })()
    if (item.history.endsWith('-00000002') && (log.durable()?.at ?? '') >= wanted) break
  }
  await done
  assert.deepEqual(
    log.names.filter((name) => name.endsWith('.history')),
    ['00000002.history'],
  )
  const histories = new Set(log.names.map((name) => name.slice(0, 8)))
  assert.deepEqual([...histories].toSorted(), ['00000001', '00000002'])
})

test('several hosts in the URL: the one that takes writes is followed', async () => {
  await using world = await World.begin()
  await world.server.query('create table t (a int)')
  await using standby = await startStandby(world)
  const both = `postgres://postgres:elephant-secret@127.0.0.1:${standby.port},127.0.0.1:${world.server.port}/postgres`
  const open = { signal: AbortSignal.timeout(600_000), log: silentLog }
  await using engine = await postgres.open(both, open)
  assert.equal(engine.facts.details['role'], 'primary')
  await using source = await engine.openLog({ log: silentLog, name: 'c', durability: 'async' })
  await replayed(standby, await insert(world.server, 1, 3))
  let done: Promise<unknown> | undefined
  const blocks: LogBlock[] = []
  for await (const item of source.read(undefined, { signal: AbortSignal.timeout(600_000) })) {
    if (item.kind === 'block') blocks.push(item)
    done ??= (async () => {
      await world.server.kill9()
      await standby.query('select pg_promote()')
      await insert(standby, 4, 6)
    })()
    if (
      blocks.filter((block) => block.history.endsWith('-00000002')).flatMap((b) => b.commits)
        .length >= 3
    )
      break
  }
  await done
  assert.ok(blocks.some((block) => block.segment === '00000002.history'))
})

test('a position of another cluster, or of a timeline that does not lead here, is refused', async () => {
  await using world = await World.begin()
  await using engine = await postgres.open(world.server.url, {
    signal: AbortSignal.timeout(600_000),
    log: silentLog,
  })
  await using source = await engine.openLog({ log: silentLog, name: 'd', durability: 'async' })
  const [system = ''] = engine.facts.history.split('-')
  const wrong: readonly Position[] = [
    { history: '1234567890-00000001', at: toAt(0x1000000n) },
    { history: `${system}-00000007`, at: toAt(0x1000000n) },
  ]
  for (const position of wrong) {
    const reading = source.read(position, { signal: AbortSignal.timeout(600_000) })
    await assert.rejects(Array.fromAsync(reading), (error) => isFault(error, 'source-changed'))
  }
})
