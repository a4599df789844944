// The continuous log at a steady rate of commits: how long until a commit is in the vault, and what archiving costs,
// beside pg_receivewal with zstd -1 behind it, on the same server in the same minutes: with --synchronous, which stores what
// came at once, as our journal does, and without, which stores a segment when it is whole. The load runs for a while before
// anything is measured. Commits as their client saw them: with `strict` they wait for the vault.
// Usage: node bench/log.ts [--rate 1000] [--warm 15] [--seconds 30] [--durability async]
import { spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { systemTime } from '#base/time'
import { Redoubt } from '../src/demo/redoubt.ts'
import { Scratch } from '../test/support/scratch.ts'
import { startPostgres } from '../test/support/servers/postgres.ts'
import { asServerUser, giveToServerUser } from '../test/support/servers/process.ts'
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
const { signal } = new AbortController()
using scratch = new Scratch('bench-log')
const tools = (await service('postgres17')).bin
await using server = await startPostgres({
  version: '17',
  settings: {
    fsync: 'on',
    max_wal_size: '8GB',
    shared_buffers: '256MB',
    ...(values.durability === 'strict' ? { synchronous_standby_names: 'redoubt_bench' } : {}),
  },
})
const env = { PGPASSWORD: new URL(server.url).password, REDOUBT_VAULT_PASSWORD: 'bench' }
// Nobody acknowledges anything yet.
const filling = { ...env, PGOPTIONS: '-c synchronous_commit=local' }
const connect = ['-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres']
await measure([`${tools}/pgbench`, '-i', '-q', '-s', '10', ...connect, 'postgres'], filling)

const redoubt = new Redoubt({ ...env, REDOUBT_DATA: scratch.join('state') }, signal)
const vault = scratch.join('vault')
await redoubt.run(['vault', 'init', '--vault', vault])
const source = ['--source', server.url, '--vault', vault, '--name', 'bench']
await using protection = redoubt.protect([...source, '--durability', values.durability])
// Also until the log of the filling is shipped: it would stand before what is measured.
await protection.until(
  ({ lastBase, lagMs }) => lastBase !== undefined && (lagMs ?? Infinity) < 1000,
  { signal },
)

/** A pg_receivewal, and the folder that it writes to. */
function receive(name: string, ...more: readonly string[]) {
  const folder = scratch.join(name)
  mkdirSync(folder)
  giveToServerUser(folder)
  const command = [`${tools}/pg_receivewal`, ...connect, '-D', folder, ...more]
  const [program, args] = asServerUser(command)
  return { folder, child: spawn(program, args, { env: { ...process.env, ...env } }) }
}
const synchronous = receive('synchronous', '--synchronous')
const plain = receive('plain')

const warmMs = Number(values.warm) * 1000
const spanSeconds = Number(values.seconds)
const load = spawn(
  `${tools}/pgbench`,
  ['-n', '-N', '-c', '4', '-R', values.rate, '-T', String(warmMs / 1000 + spanSeconds)].concat(
    ['-l', `--log-prefix=${scratch.join('commits')}`],
    [...connect, 'postgres'],
  ),
  { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] },
)
let said = ''
load.stdout.on('data', (chunk: Buffer) => {
  said += chunk.toString()
})
const loaded = new Promise<void>((resolve) => load.once('close', () => resolve()))
let running = true
void loaded.then(() => {
  running = false
})
await systemTime.sleep(warmMs)
const watch = new LogWatch(vault, 'bench')
const wholeSegments = readdirSync(synchronous.folder).length
const begun = cpuNow()
const startedMs = performance.now()
const startedUs = Date.now() * 1000
await watch.follow(
  async () => {
    const [row] = await server.query<{ lsn: string }>(
      `select lpad(to_hex(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint), 16, '0') as lsn`,
    )
    return (row?.lsn ?? '').toUpperCase()
  },
  () => running,
)
const spanMs = performance.now() - startedMs
const ended = cpuNow()
await watch.rest()
for (const { child } of [synchronous, plain]) child.kill('SIGTERM')
// What came while it was measured, and not before.
const segments = readdirSync(synchronous.folder)
  .toSorted()
  .slice(Math.max(0, wholeSegments - 1))
  .map((name) => path.join(synchronous.folder, name))
const zstd = path.join((await service('zstd@bookworm')).bin, 'zstd')
const packed = await measure([
  zstd,
  '-1',
  '-q',
  '-f',
  '--output-dir-flat',
  scratch.path,
  ...segments,
])

function cpuNow() {
  return {
    ours: cpuOfTree(protection.pid),
    synchronous: cpuOfTree(synchronous.child.pid ?? 0),
    plain: cpuOfTree(plain.child.pid ?? 0),
  }
}

/** How long each commit took, without what it waited for its turn by the rate: pgbench(1), per-transaction logging. */
function readCommits(): number[] {
  const lines = readdirSync(scratch.path)
    .filter((name) => name.startsWith('commits.'))
    .flatMap((name) => readFileSync(scratch.join(name), 'utf8').trim().split('\n'))
  return lines
    .map((line) => line.split(' ').map(Number))
    .filter(([, , , , seconds = 0, us = 0]) => seconds * 1e6 + us >= startedUs)
    .map(([, , elapsedUs = 0, , , , lateUs = 0]) => (elapsedUs - lateUs) / 1000)
}

const peakKb = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${protection.pid}/status`, 'utf8'))?.[1]

const lags = watch.lagsMs()
const oursMs = ended.ours - begun.ours
const peerMs = (name: 'synchronous' | 'plain') => ended[name] - begun[name] + packed.cpuMs
const ratio = (name: 'synchronous' | 'plain') => Number((oursMs / peerMs(name)).toFixed(2))
console.log(
  JSON.stringify({
    rate: Number(values.rate),
    tps: Number(/tps = ([\d.]+)/.exec(said)?.[1]),
    durability: values.durability,
    samples: lags.length,
    unseen: watch.asked - lags.length,
    inVaultMs: figures(lags),
    commitMs: figures(readCommits()),
    seconds: Math.round(spanMs / 1000),
    objects: watch.objects,
    cpuMs: oursMs,
    peerCpuMs: {
      synchronous: Math.round(peerMs('synchronous')),
      plain: Math.round(peerMs('plain')),
    },
    zstdCpuMs: packed.cpuMs,
    cpuRatio: { synchronous: ratio('synchronous'), plain: ratio('plain') },
    peakMiB: Math.round(Number(peakKb) / 1024),
    load: loadavg()[0],
  }),
)
