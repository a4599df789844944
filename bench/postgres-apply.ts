import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { systemTime } from '#base/time'
import type { Position } from '#change'
import type { Batch } from '#change/batch'
import { carryChanges } from '#links/changes'
import { FlowMeter } from '#links/flow'
import { Since } from '#links/since'
import { PostgresApply } from '../src/engines/postgres/apply/apply.ts'
import { parseAddress } from '../src/engines/postgres/connection.ts'
import { Driver } from '../test/support/postgres-apply.ts'
import { follow } from '../test/support/postgres-follow.ts'
import { openChangesOf, openReader } from '../test/support/postgres-mirror.ts'
import { type PostgresServer, startPostgres } from '../test/support/servers/postgres.ts'
import { cpuOfTree } from './server-cpu.ts'

/**
 * Catching up changes of a PostgreSQL: the native subscription, and ours with one lane, each transaction committed by itself and
 * several together. `node bench/postgres-apply.ts [--transactions 20000] [--together 1,20,200]`. CPU of the source's walsender counts for both.
 */
const at = process.argv.indexOf('--transactions')
const transactions = at < 0 ? 20_000 : Number(process.argv[at + 1])
const togetherAt = process.argv.indexOf('--together')
const sizes =
  togetherAt < 0 ? [1, 20, 200] : (process.argv[togetherAt + 1] ?? '').split(',').map(Number)
const signal = AbortSignal.timeout(1_800_000)

const tables = `create table accounts (id int primary key, balance bigint, filler text);
  create table history (id bigint primary key, account int, delta int, at timestamp, note text);
  create table over (id bigint generated always as identity primary key)`

/** Small transactions as a shop has them: an update of one of many rows, one of a hot row, an insert, now and then a delete. */
async function load(source: PostgresServer): Promise<number> {
  await using client = await source.connect()
  await client.query(`create procedure work(count int) language plpgsql as $$ begin
    for i in 1..count loop
      update accounts set balance = balance + i where id = 1 + (i * 7919) % 100000;
      if i % 4 = 0 then update accounts set balance = balance - 1 where id = 1 + i % 10; end if;
      insert into history values (i, i % 100000, i, '2026-05-01', 'note ' || i);
      if i % 10 = 0 then delete from history where id = i - 9; end if;
      commit;
    end loop; end $$`)
  await client.query(`call work(${transactions})`)
  await client.query('update accounts set balance = balance + 1 where id <= 50000')
  await client.query(
    `insert into history select i, 1, 1, '2026-05-01', 'bulk' from generate_series(10000000, 10000000 + 49999) i`,
  )
  return transactions * 2.35 + 100_000
}

const fill = `insert into accounts select i, 0, repeat('x', 80) from generate_series(1, 100000) i`
const settings = {
  wal_level: 'logical',
  max_wal_size: '4GB',
  shared_buffers: '256MB',
  max_wal_senders: '10',
  autovacuum: 'off',
}

async function targetWithRows(): Promise<PostgresServer> {
  const target = await startPostgres({ settings })
  await target.query(`${tables}; ${fill}`)
  await target.query('vacuum analyze')
  await target.query('checkpoint')
  return target
}

type Cost = { wallS: number; target: number; source: number; ours: number }

function ourCpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

async function measured(
  source: PostgresServer,
  target: PostgresServer,
  work: () => Promise<void>,
): Promise<Cost> {
  const [sourceMs, targetMs, oursMs] = [cpuOfTree(source.pid), cpuOfTree(target.pid), ourCpuMs()]
  const begunMs = performance.now()
  await work()
  const wallS = (performance.now() - begunMs) / 1000
  return {
    wallS,
    target: (cpuOfTree(target.pid) - targetMs) / 1000,
    source: (cpuOfTree(source.pid) - sourceMs) / 1000,
    ours: (ourCpuMs() - oursMs) / 1000,
  }
}

function tell(name: string, rows: number, { wallS, target, source, ours }: Cost): void {
  const all = target + source + ours
  const cells = [target, source, ours, all].map((value) => value.toFixed(2))
  console.log(
    `| ${name} | ${(rows / wallS / 1000).toFixed(0)} k | ${wallS.toFixed(1)} | ${cells.join(' | ')} |`,
  )
}

async function digest(server: PostgresServer): Promise<string> {
  const rows = await server.query(
    `select (select md5(string_agg(a::text, '' order by id)) from accounts a) as a, (select md5(string_agg(h::text, '' order by id)) from history h) as h`,
  )
  return JSON.stringify(rows)
}

await using source = await startPostgres({ settings })
await source.query(`${tables}; ${fill}`)
const after: Position = await follow(source, 'bench')
await source.query(`create publication native for table accounts, history, over`)
await source.query(`select pg_create_logical_replication_slot('native', 'pgoutput')`)
const rows = await load(source)
await source.query('insert into over default values')
const wanted = await digest(source)

console.log('| way | rows a s | wall s | target CPU s | source CPU s | own CPU s | all CPU s |')
console.log('|-|-|-|-|-|-|-|')

async function native(): Promise<void> {
  await using target = await targetWithRows()
  const cost = await measured(source, target, async () => {
    await target.query(
      `create subscription s connection '${source.url}' publication native with (create_slot = false, slot_name = 'native', copy_data = false)`,
    )
    await untilOver(target)
  })
  tell('native subscription', rows, cost)
  if ((await digest(target)) !== wanted) throw new Error('the native target differs')
  await target.query(`alter subscription s disable`)
}

async function untilOver(target: PostgresServer): Promise<void> {
  await using client = await target.connect()
  for (;;) {
    const { rows: there } = await client.query('select from over')
    if (there.length > 0) return
    await client.query('select pg_sleep(0.05)')
  }
}

/** All that a link does, which commits together what waits for a lane. */
async function link(parallel: number): Promise<void> {
  await using target = await targetWithRows()
  const directory = await mkdtemp(path.join(tmpdir(), 'apply-'))
  const changes = await openChangesOf(source.url)
  const stop = new AbortController()
  const cost = await measured(source, target, async () => {
    const carried = carryChanges({
      // The slot is kept where it is, for whoever is measured next.
      source: {
        openChanges: async (options) =>
          Object.assign(await changes.openChanges(options), { ack: async () => undefined }),
        endChanges: async () => undefined,
      },
      target: new PostgresApply(parseAddress(target.url)),
      link: 'bench',
      selection: { accepts: () => true, map: (name) => name },
      since: new Since([], after),
      until: { kind: 'never' },
      conflicts: 'stop',
      parallel,
      directory,
      throttle: undefined,
      meter: new FlowMeter(createProgress('bench'), systemTime),
      onConflict: () => undefined,
      onHiddenCascade: () => undefined,
      time: systemTime,
      log: silentLog,
      signal: stop.signal,
    }).catch((error: unknown) => {
      if (!stop.signal.aborted) throw error
    })
    await Promise.race([untilOver(target), carried])
    stop.abort()
    await carried
  })
  tell(`a link of ${parallel} lanes`, rows, cost)
  await rm(directory, { recursive: true })
  if ((await digest(target)) !== wanted) throw new Error('the target of the link differs')
}

async function ours(together: number): Promise<void> {
  await using target = await targetWithRows()
  const apply = new PostgresApply(parseAddress(target.url))
  const cost = await measured(source, target, async () => {
    const selection = { accepts: () => true, map: (name: readonly string[]) => name }
    await using applier = await apply.openApply({
      link: 'bench',
      lanes: 1,
      selection,
      conflicts: 'stop',
      log: silentLog,
      signal,
    })
    await using reader = await openReader(source.url, { after, name: 'bench', rowsMax: 10_000 })
    const driver = new Driver(applier, { together })
    for await (const item of reader.read({ signal })) {
      if (item.kind === 'beat') continue
      await driver.take(item)
      if (isLast(item)) break
    }
  })
  tell(`ours, ${together} transactions at once`, rows, cost)
  if ((await digest(target)) !== wanted) throw new Error('our target differs')
}

function isLast(batch: Batch): boolean {
  return batch.transactions.some((one) =>
    one.changes.some((change) => 'relation' in change && change.relation.name[1] === 'over'),
  )
}

await native()
for (const together of sizes) await ours(together)
for (const parallel of [1, 2, 4]) await link(parallel)
