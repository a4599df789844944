import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import type { LogBeat, LogSource, Position } from '#change'
import { MemoryLog } from '../../../test/support/memory-log.ts'
import { giveToServerUser } from '../../../test/support/servers/process.ts'
import { runProgram } from '../../../test/support/servers/tool.ts'
import { startPostgres, type PostgresServer } from '../../../test/support/servers/postgres.ts'
import { toAt, parseLsn } from './lsn.ts'
import { postgres } from './postgres.ts'

const small = { initdb: ['--wal-segsize=1'] }
const options = { log: silentLog, name: 'shop', durability: 'async' } as const

/** Reads into the log until `enough` says so, acknowledging everything. */
async function pump(
  source: LogSource,
  into: MemoryLog,
  after: Position | undefined,
  enough: (beat: LogBeat | undefined) => boolean | Promise<boolean>,
): Promise<void> {
  const signal = AbortSignal.timeout(600_000)
  for await (const item of source.read(after, { signal })) {
    if (item.kind === 'block') {
      await into.append(item)
      await source.ack({ history: item.history, at: item.next })
    }
    if (await enough(item.kind === 'beat' ? item : undefined)) return
  }
}

async function flushed(server: PostgresServer): Promise<string> {
  const [row] = await server.query<{ lsn: string }>('select pg_current_wal_flush_lsn() as lsn')
  return toAt(parseLsn(row?.lsn ?? ''))
}

const open = (server: PostgresServer) =>
  postgres.open(server.url, { signal: AbortSignal.timeout(600_000), log: silentLog })

test('the archived segments equal the files of the server, the open tail included', async () => {
  await using server = await startPostgres(small)
  await using engine = await open(server)
  await using source = await engine.openLog(options)
  const log = new MemoryLog()
  await server.query('create table t (a int primary key, b text)')
  const running = server.query(
    `do $$ begin for i in 1..3000 loop insert into t values (i, repeat('x', 1000)); commit; end loop; end $$`,
  )
  let target = '~'
  void running.then(async () => {
    target = await flushed(server)
  })
  await pump(source, log, undefined, (beat) => beat !== undefined && beat.at >= target)
  assert.ok(log.names.length >= 4, log.names.join())
  for (const name of log.names) {
    const archived = log.bytes(name)
    const file = readFileSync(path.join(server.dataDir, 'pg_wal', name))
    assert.ok(file.subarray(0, archived.length).equals(archived), name)
  }
  assert.ok(log.commits.length >= 3000)
  const xids = await server.query<{ xmin: string }>('select distinct xmin::text from t')
  const seen = new Set(log.commits.map((commit) => commit.id))
  assert.ok(xids.every(({ xmin }) => seen.has(xmin)))
})

test('segments of 64 MB', async () => {
  await using server = await startPostgres({ initdb: ['--wal-segsize=64'] })
  await using engine = await open(server)
  await using source = await engine.openLog(options)
  const log = new MemoryLog()
  await server.query('create table t as select generate_series(1, 1000) as a')
  const wanted = await flushed(server)
  await pump(source, log, undefined, () => (log.durable()?.at ?? '') >= wanted)
  const [name = ''] = log.names
  const archived = log.bytes(name)
  const file = readFileSync(path.join(server.dataDir, 'pg_wal', name))
  assert.equal(file.length, 64 << 20)
  assert.ok(file.subarray(0, archived.length).equals(archived))
})

test('over TLS, with a password', async () => {
  await using server = await startPostgres(small)
  const folder = server.makeFolder('tls')
  const [key, cert] = [`${folder}/key`, `${folder}/cert`]
  const what = [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=localhost',
  ]
  await runProgram('openssl', [
    ...what,
    '-addext',
    'subjectAltName=DNS:localhost,IP:127.0.0.1',
    '-keyout',
    key,
    '-out',
    cert,
  ])
  giveToServerUser(folder)
  await server.restart({ ssl: 'on', ssl_key_file: key, ssl_cert_file: cert })
  const url = `${server.url}?sslmode=verify-full&sslrootcert=${encodeURIComponent(cert)}`
  await using engine = await postgres.open(url, {
    signal: AbortSignal.timeout(600_000),
    log: silentLog,
  })
  await using source = await engine.openLog(options)
  const log = new MemoryLog()
  await server.query("create table t as select g, repeat('x', 900) from generate_series(1, 2000) g")
  const wanted = await flushed(server)
  let encrypted: unknown
  await pump(source, log, undefined, async () => {
    const [row] = await server.query(
      `select bool_and(ssl) as ssl from pg_stat_ssl join pg_stat_replication using (pid)`,
    )
    encrypted ??= row?.['ssl'] ?? undefined
    return (log.durable()?.at ?? '') >= wanted
  })
  assert.equal(encrypted, true)
  for (const name of log.names) {
    const archived = log.bytes(name)
    const file = readFileSync(path.join(server.dataDir, 'pg_wal', name))
    assert.ok(file.subarray(0, archived.length).equals(archived), name)
  }
  const wrong = `${server.url}?sslmode=verify-full`
  await assert.rejects(
    postgres.open(wrong, { signal: AbortSignal.timeout(600_000), log: silentLog }),
    (error) => isFault(error, 'denied') && !error.message.includes('elephant'),
  )
})

test('reading goes on behind a position in the middle of a segment, over kill -9 and a clean restart', async () => {
  await using server = await startPostgres(small)
  await using engine = await open(server)
  await using source = await engine.openLog(options)
  const log = new MemoryLog()
  await server.query('create table t (a int)')
  const insert = async () => {
    await server.query('insert into t select generate_series(1, 7)')
    return flushed(server)
  }
  let wanted = await insert()
  await pump(source, log, undefined, () => (log.durable()?.at ?? '') >= wanted)
  wanted = await insert()
  const reached = () => (log.durable()?.at ?? '') >= wanted
  // The reading goes on while the server goes down: a clean stop waits for our acknowledgement.
  const steps = (async () => {
    await server.kill9()
    await server.start()
    wanted = await insert()
    await server.restart()
    wanted = `${await insert()}`
    return true
  })()
  let done = false
  void steps.then(() => {
    done = true
  })
  await pump(source, log, log.durable(), () => done && reached())
  await steps
  const ids = log.commits.map((commit) => commit.id)
  assert.equal(new Set(ids).size, ids.length, 'a commit came twice')
  const xids = await server.query<{ xmin: string }>('select distinct xmin::text from t')
  assert.ok(xids.length === 4)
  assert.ok(xids.every(({ xmin }) => ids.includes(xmin)))
})

test('an idle server is heard of', async () => {
  await using server = await startPostgres(small)
  await using engine = await open(server)
  await using source = await engine.openLog(options)
  const beats: LogBeat[] = []
  await pump(source, new MemoryLog(), undefined, (beat) => {
    if (beat) beats.push(beat)
    return beats.length === 3
  })
  assert.ok((beats[2]?.timeUs ?? 0n) > (beats[0]?.timeUs ?? 0n))
})

test('strict: a commit waits for the acknowledgement, and the loss of the promise is told', async () => {
  await using server = await startPostgres({
    ...small,
    settings: { synchronous_standby_names: 'redoubt_shop' },
  })
  // The setting must not stand in the way of making the table.
  await server.query('set synchronous_commit = local; create table t (a int)')
  await using engine = await open(server)
  const said: (string | undefined)[] = []
  await using source = await engine.openLog({
    ...options,
    durability: 'strict',
    onDegraded: (words) => said.push(words),
  })
  const signal = AbortSignal.timeout(600_000)
  let committed = false
  let pending: Promise<void> | undefined
  for await (const item of source.read(undefined, { signal })) {
    if (committed) break
    if (item.kind === 'beat' && pending === undefined) {
      pending = server.query('insert into t values (1)').then(() => {
        committed = true
      })
    }
    if (item.kind === 'block' && item.commits.length > 0 && pending) {
      // The log is here before its writer has come to wait.
      const waits = `select 1 from pg_stat_activity where wait_event = 'SyncRep'`
      while ((await server.query(waits)).length === 0) assert.equal(committed, false)
      assert.equal(committed, false)
      await source.ack({ history: item.history, at: item.next })
    }
  }
  await pending
  assert.equal(committed, true)
  assert.deepEqual(said.filter(Boolean), [])
})

test('strict without the setting is told at once', async () => {
  await using server = await startPostgres(small)
  await using engine = await open(server)
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  await using source = await engine.openLog({
    ...options,
    durability: 'strict',
    onDegraded: resolve,
  })
  await pump(source, new MemoryLog(), undefined, (beat) => beat !== undefined)
  assert.match((await promise) ?? '', /does not name redoubt_shop/)
})

test('a lost slot is told, and reading from the start makes it anew', async () => {
  await using server = await startPostgres({
    ...small,
    settings: { max_slot_wal_keep_size: '1MB', min_wal_size: '2MB', max_wal_size: '2MB' },
  })
  await using engine = await open(server)
  await using source = await engine.openLog(options)
  const log = new MemoryLog()
  await pump(source, log, undefined, () => true)
  await server.query('create table t (b text)')
  for (let n = 0; n < 6; n += 1) {
    await server.query(`insert into t select repeat('x', 1000) from generate_series(1, 2000)`)
    await server.query('checkpoint')
  }
  await assert.rejects(
    pump(source, log, log.durable(), () => false),
    (error) => isFault(error, 'log-lost'),
  )
  const anew = new MemoryLog()
  await pump(source, anew, undefined, () => anew.names.length > 0)
})

test('a role without the right is told what it lacks', async () => {
  await using server = await startPostgres(small)
  await server.query("create role plain login password 'p'")
  const plain = await postgres.open(server.urlOf('postgres', 'plain', 'p'), {
    signal: AbortSignal.timeout(600_000),
    log: silentLog,
  })
  await using engine = plain
  const findings = await engine.probe('protect', { signal: AbortSignal.timeout(600_000) })
  const finding = findings.find((one) => one.code === 'no-replication-right')
  assert.equal(finding?.severity, 'blocks')
  assert.equal(finding?.mend, 'ALTER ROLE "plain" REPLICATION;')
  await using source = await engine.openLog(options)
  await assert.rejects(
    pump(source, new MemoryLog(), undefined, () => false),
    (error) => isFault(error, 'denied') && /REPLICATION/.test(error.hint ?? ''),
  )
})
