// The continuous log of MariaDB 10.11 at a steady rate of commits: how long until a commit is in the vault, and what archiving
// costs, beside mariadb-binlog --raw with zstd -1 behind it, on the same server in the same minutes. The peer syncs nothing.
// The load runs for a while before anything is measured. With `strict` commits wait for the vault.
// Usage: node bench/mariadb-log.ts [--rate 1000] [--warm 15] [--seconds 30] [--durability async]
import { spawn } from 'node:child_process'
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs'
import { loadavg } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { systemTime } from '#base/time'
import { Redoubt } from '../src/demo/redoubt.ts'
import { Scratch } from '../test/support/scratch.ts'
import { startMariadb } from '../test/support/servers/mariadb.ts'
import { asServerUser } from '../test/support/servers/process.ts'
import { service } from '../test/support/servers/services.ts'
import { figures, LogWatch } from './log-watch.ts'
import { measure } from './measure.ts'
import { cpuOfTree } from './server-cpu.ts'

const { values } = parseArgs({
  options: {
    rate: { type: 'string', default: '1000' },
    warm: { type: 'string', default: '15' },
    seconds: { type: 'string', default: '30' },
    durability: { type: 'string', default: 'async' },
  },
})
const clients = 4
const { signal } = new AbortController()
using scratch = new Scratch('bench-mariadb-log')
await using server = await startMariadb({
  version: '10.11',
  settings: {
    'sync-binlog': '1',
    ...(values.durability === 'strict'
      ? { 'rpl-semi-sync-master-enabled': 'ON', 'rpl-semi-sync-master-wait-point': 'AFTER_SYNC' }
      : {}),
  },
})
// Rows of about what pgbench writes for a commit.
await server.query(
  'create database bench; create table bench.account (id int primary key, balance int not null, filler char(84) not null default ""); create table bench.history (id bigint auto_increment primary key, account int, delta int, at datetime(6), filler char(22) not null default "")',
)
await server.query(
  'insert into bench.account (id, balance) select seq, 0 from bench.seq_1_to_100000',
)

const env = { REDOUBT_VAULT_PASSWORD: 'bench' }
const redoubt = new Redoubt({ ...env, REDOUBT_DATA: scratch.join('state') }, signal)
const vault = scratch.join('vault')
await redoubt.run(['vault', 'init', '--vault', vault])
const source = ['--source', server.url, '--vault', vault, '--name', 'bench']
await using protection = redoubt.protect([...source, '--durability', values.durability])
await protection.until(
  ({ lastBase, lagMs }) => lastBase !== undefined && (lagMs ?? Infinity) < 1000,
  { signal },
)

const raw = server.makeFolder('raw')
const first = (await server.query<{ Log_name: string }>('show binary logs')).at(-1)?.Log_name ?? ''
const peerArgs = ['--no-defaults', '--read-from-remote-server', ...server.clientArgs, '--raw']
const [program, args] = asServerUser(
  [`${server.bin}/mariadb-binlog`, ...peerArgs].concat([
    '--stop-never',
    '--stop-never-slave-server-id=77',
    `--result-file=${raw}/`,
    first,
  ]),
)
const peer = spawn(program, args, {
  env: { ...process.env, MYSQL_PWD: 'dolphin-secret' },
  stdio: ['ignore', 'inherit', 'inherit'],
})

/** One client's commits at its share of the rate; each is a change of one row and a new one, as pgbench's simple update. */
async function load(stop: AbortSignal): Promise<void> {
  await using client = await server.connect('bench')
  const betweenMs = (1000 * clients) / Number(values.rate)
  for (let dueMs = performance.now(); !stop.aborted; dueMs += betweenMs) {
    const earlyMs = dueMs - performance.now()
    if (earlyMs > 1) await systemTime.sleep(earlyMs)
    const id = 1 + Math.floor(Math.random() * 100_000)
    const delta = Math.floor(Math.random() * 10_000) - 5000
    const begunMs = performance.now()
    await client.query(
      `begin; update account set balance = balance + ${delta} where id = ${id}; insert into history (account, delta, at) values (${id}, ${delta}, now(6)); commit`,
    )
    commits.push({ ms: begunMs, tookMs: performance.now() - begunMs })
  }
}

const commits: { readonly ms: number; readonly tookMs: number }[] = []
const warmMs = Number(values.warm) * 1000
const spanSeconds = Number(values.seconds)
let running = true
const stop = AbortSignal.timeout(warmMs + spanSeconds * 1000)
const loaded = Promise.all(Array.from({ length: clients }, () => load(stop))).finally(() => {
  running = false
})
await systemTime.sleep(warmMs)
const watch = new LogWatch(vault, 'bench')
const before = sizesOf(raw)
const begun = cpuNow()
const startedMs = performance.now()
await using asking = await server.connect()
await watch.follow(
  async () => {
    const [rows] = await asking.query('show master status')
    const [row] = rows as { File: string; Position: number }[]
    const file = row?.File.split('.').at(-1) ?? ''
    return `${file.padStart(10, '0')}.${String(row?.Position).padStart(12, '0')}`
  },
  () => running,
)
await loaded
const spanMs = performance.now() - startedMs
const ended = cpuNow()
await watch.rest()
peer.kill('SIGTERM')

function cpuNow() {
  return { ours: cpuOfTree(protection.pid), peer: cpuOfTree(peer.pid ?? 0) }
}

function sizesOf(folder: string): Map<string, number> {
  return new Map(readdirSync(folder).map((name) => [name, statSync(path.join(folder, name)).size]))
}

// What came while it was measured, and not before.
const tail = scratch.join('tail')
const out = openSync(tail, 'w')
for (const [name, size] of sizesOf(raw)) {
  const from = before.get(name) ?? 0
  const bytes = Buffer.alloc(size - from)
  const file = openSync(path.join(raw, name), 'r')
  readSync(file, bytes, 0, bytes.length, from)
  closeSync(file)
  writeSync(out, bytes)
}
closeSync(out)
const zstd = path.join((await service('zstd@bookworm')).bin, 'zstd')
const packed = await measure([zstd, '-1', '-q', '-f', tail])
const peakKb = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${protection.pid}/status`, 'utf8'))?.[1]
const lags = watch.lagsMs()
const measured = commits.filter(({ ms }) => ms >= startedMs)
const oursMs = ended.ours - begun.ours
const peerMs = ended.peer - begun.peer + packed.cpuMs
console.log(
  JSON.stringify({
    rate: Number(values.rate),
    tps: Math.round(measured.length / (spanMs / 1000)),
    durability: values.durability,
    samples: lags.length,
    unseen: watch.asked - lags.length,
    inVaultMs: figures(lags),
    commitMs: figures(measured.map(({ tookMs }) => tookMs)),
    seconds: Math.round(spanMs / 1000),
    objects: watch.objects,
    logBytes: statSync(tail).size,
    cpuMs: oursMs,
    peerCpuMs: Math.round(peerMs),
    zstdCpuMs: packed.cpuMs,
    cpuRatio: Number((oursMs / peerMs).toFixed(2)),
    peakMiB: Math.round(Number(peakKb) / 1024),
    load: loadavg()[0],
  }),
)
