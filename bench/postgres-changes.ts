import { silentLog } from '#base/log'
import type { LogBeat } from '#change'
import type { Batch } from '#change/batch'
import { PostgresChanges } from '../src/engines/postgres/changes/changes.ts'
import { BatchBuilder } from '../src/engines/postgres/changes/batches.ts'
import { ChangeFlow } from '../src/engines/postgres/changes/flow.ts'
import { PgoutputDecoder } from '../src/engines/postgres/changes/pgoutput.kernel.ts'
import { openLogicalSender, openSession, parseAddress } from '../src/engines/postgres/connection.ts'
import { readFacts } from '../src/engines/postgres/facts.ts'
import { follow } from '../test/support/postgres-follow.ts'
import { startPostgres } from '../test/support/servers/postgres.ts'

/**
 * Changes of PostgreSQL, decoded to offsets: from a live server, where the socket and the server count too, and the decoder alone
 * over the same bytes in memory. `node bench/postgres-changes.ts [--rows 300000]`
 */
const rowsAt = process.argv.indexOf('--rows')
const rows = rowsAt < 0 ? 300_000 : Number(process.argv[rowsAt + 1])
const signal = AbortSignal.timeout(600_000)
const passes = 5

await using server = await startPostgres({
  settings: { wal_level: 'logical', max_wal_size: '2GB', shared_buffers: '256MB' },
})
await server.query(
  `create table t (id int primary key, k int, c text, pad text, d numeric(12,2), at timestamp(3), v text, b bigint)`,
)
const after = await follow(server, 'bench')
await using client = await server.connect()
const perTransaction = 1000
let made = 0
for (let first = 1; made < rows; first += perTransaction) {
  await client.query(
    `insert into t select i, i * 7, repeat(md5(i::text), 3), md5(i::text), i * 1.01, timestamp '2026-05-01' + i * interval '1 s', 'note ' || i, i::bigint * 1000003
     from generate_series(${first}, ${first + perTransaction - 1}) i`,
  )
  await client.query(
    `update t set k = k + 1 where id between ${first} and ${first + perTransaction / 2 - 1}`,
  )
  made += perTransaction * 1.5
}

const address = parseAddress(server.url)
const facts = await (async () => {
  await using session = await openSession(address, { signal })
  return await readFacts(session, signal)
})()

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

function tell(what: string, count: number, bytes: number, cpu: number, wallMs: number): void {
  const rate = (count / 1e6 / cpu).toFixed(2)
  const peak = (process.resourceUsage().maxRSS / 1024).toFixed(0)
  console.log(
    `| ${what} | ${count} | ${(bytes / 1e6).toFixed(0)} MB | ${cpu.toFixed(2)} | ${rate} M | ${(wallMs / 1000).toFixed(1)} | ${peak} MiB |`,
  )
}

console.log('| path | rows | bytes | CPU s | rows a CPU second | wall s | peak |')
console.log('|-|-|-|-|-|-|-|')

async function live(): Promise<void> {
  const changes = new PostgresChanges(address, facts)
  const options = {
    batchRowsMax: 10_000,
    batchBytesMax: 4 << 20,
    selection: { accepts: () => true },
    log: silentLog,
  }
  await using reader = await changes.openChanges({ name: 'bench', after, signal, ...options })
  let [count, bytes] = [0, 0]
  const [cpu, startMs] = [cpuSeconds(), performance.now()]
  for await (const item of reader.read({ signal }) as AsyncIterable<Batch | LogBeat>) {
    if (item.kind === 'beat') continue
    count += item.rows
    bytes += item.sizeBytes
    if (count >= made) break
  }
  tell('from a live server', count, bytes, cpuSeconds() - cpu, performance.now() - startMs)
}

async function captured(): Promise<Buffer[]> {
  const wire = await openLogicalSender(address, { signal })
  wire.sendQuery(
    `START_REPLICATION SLOT redoubt_bench LOGICAL 0/0 (proto_version '1', publication_names 'redoubt_bench')`,
  )
  await wire.expect(signal, 'start', 'W')
  const runs: Buffer[] = []
  for (let idle = false; !idle; ) {
    try {
      const run = await wire.copyRun(signal, 2000)
      if (run) runs.push(Buffer.from(run.bytes))
    } catch {
      idle = true
    }
  }
  wire.close()
  return runs
}

async function alone(runs: readonly Buffer[]): Promise<void> {
  const builder = new BatchBuilder({ rowsMax: 10_000, bytesMax: 4 << 20 })
  const timeline = { systemId: '1', timeline: 1 }
  const decoder = new PgoutputDecoder({
    accepts: () => true,
    form: 'pg/text',
    timeline,
    builder,
    typeNames: new Map(),
  })
  const flow = new ChangeFlow({ builder, decoder, open: undefined, history: 'h' })
  let [count, bytes] = [0, 0]
  const [cpu, startMs] = [cpuSeconds(), performance.now()]
  for (const run of runs) {
    for await (const batch of flow.feed(run, signal)) {
      count += batch.rows
      bytes += batch.sizeBytes
    }
  }
  for (const item of flow.flush()) if (item.kind === 'batch') count += item.rows
  tell('the decoder alone', count, bytes, cpuSeconds() - cpu, performance.now() - startMs)
}

for (let i = 0; i < 4; i += 1) await live()
const runs = await captured()
for (let pass = 0; pass < passes; pass += 1) await alone(runs)
