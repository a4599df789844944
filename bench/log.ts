// The continuous log at a steady rate of commits: how long until a commit is in the vault, and what archiving costs,
// beside pg_receivewal with zstd -1 behind it, on the same server in the same minutes.
// Usage: node bench/log.ts [--rate 1000] [--seconds 30] [--durability async]
import { spawn } from 'node:child_process'
import { mkdirSync, openSync, readdirSync, readFileSync, readSync, closeSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { systemTime } from '#base/time'
import { Redoubt } from '../src/demo/redoubt.ts'
import { Scratch } from '../test/support/scratch.ts'
import { startPostgres } from '../test/support/servers/postgres.ts'
import { asServerUser, giveToServerUser } from '../test/support/servers/process.ts'
import { service } from '../test/support/servers/services.ts'
import { measure } from './measure.ts'
import { cpuOfTree } from './server-cpu.ts'

const { values } = parseArgs({
  options: {
    rate: { type: 'string', default: '1000' },
    seconds: { type: 'string', default: '30' },
    durability: { type: 'string', default: 'async' },
  },
})
const { signal } = new AbortController()
using scratch = new Scratch('bench-log')
const tools = (await service('postgres17')).bin
await using server = await startPostgres({
  version: '17',
  settings: { fsync: 'on', max_wal_size: '8GB', shared_buffers: '256MB' },
})
const env = { PGPASSWORD: new URL(server.url).password, REDOUBT_VAULT_PASSWORD: 'bench' }
const connect = ['-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres']
await measure([`${tools}/pgbench`, '-i', '-q', '-s', '10', ...connect, 'postgres'], env)

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

const received = scratch.join('received')
mkdirSync(received)
giveToServerUser(received)
const [program, args] = asServerUser([
  `${tools}/pg_receivewal`,
  ...connect,
  '-D',
  received,
  '--synchronous',
])
const receiver = spawn(program, args, { env: { ...process.env, ...env }, stdio: 'inherit' })

type Sample = { readonly at: string; readonly ms: number }
const asked: Sample[] = []
const durable: Sample[] = []
const known = new Set<string>()
const folder = path.join(vault, 'log/bench')

/** Notes objects that appeared, by the position behind their last byte: it stands in the age header, unencrypted. */
function lookForObjects(): void {
  for (const history of readdirSync(folder).filter((name) => !name.startsWith('='))) {
    for (const name of readdirSync(path.join(folder, history))) {
      if (!name.includes('.part.') || name.startsWith('.') || known.has(name)) continue
      known.add(name)
      const next = readNext(path.join(folder, history, name))
      if (next) durable.push({ at: next, ms: performance.now() })
    }
  }
}

function readNext(file: string): string | undefined {
  const head = Buffer.alloc(16_384)
  const descriptor = openSync(file, 'r')
  const size = readSync(descriptor, head)
  closeSync(descriptor)
  const text = head.toString('latin1', 0, size)
  const body = /-> redoubt-log [^\n]+\n([A-Za-z0-9+/\n]+?)\n---/.exec(text)?.[1] ?? ''
  const record = Buffer.from(body.replaceAll('\n', ''), 'base64').toString()
  return /"next":"([0-9A-F]{16})"/.exec(record)?.[1]
}

lookForObjects()
durable.length = 0
const load = spawn(
  `${tools}/pgbench`,
  ['-n', '-N', '-c', '4', '-R', values.rate, '-T', values.seconds, ...connect, 'postgres'],
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
const archiverCpu = cpuOfTree(protection.pid)
const receiverCpu = cpuOfTree(receiver.pid ?? 0)
const startedMs = performance.now()
while (running) {
  const [row] = await server.query<{ lsn: string }>(
    `select lpad(to_hex(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint), 16, '0') as lsn`,
  )
  asked.push({ at: (row?.lsn ?? '').toUpperCase(), ms: performance.now() })
  lookForObjects()
  await systemTime.sleep(10)
}
const spanMs = performance.now() - startedMs
// Looked for as often as before: else what was asked last would seem to have taken until the end of the pause.
for (const untilMs = performance.now() + 3000; performance.now() < untilMs; ) {
  lookForObjects()
  await systemTime.sleep(10)
}
const archiverMs = cpuOfTree(protection.pid) - archiverCpu
const receiverMs = cpuOfTree(receiver.pid ?? 0) - receiverCpu
receiver.kill('SIGTERM')
const segments = readdirSync(received).map((name) => path.join(received, name))
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
const peakKb = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${protection.pid}/status`, 'utf8'))?.[1]

const lags = asked
  .map(({ at, ms }) => ({ ms, seen: durable.find((one) => one.at >= at)?.ms }))
  .flatMap(({ ms, seen }) => (seen === undefined ? [] : [Math.max(0, seen - ms)]))
  .toSorted((a, b) => a - b)
const quantile = (share: number) => Math.round(lags[Math.floor(lags.length * share)] ?? Number.NaN)
console.log(
  JSON.stringify({
    rate: Number(values.rate),
    tps: Number(/tps = ([\d.]+)/.exec(said)?.[1]),
    durability: values.durability,
    samples: lags.length,
    unseen: asked.length - lags.length,
    lagMs: { p50: quantile(0.5), p99: quantile(0.99), max: Math.round(lags.at(-1) ?? Number.NaN) },
    seconds: Math.round(spanMs / 1000),
    objects: durable.length,
    archiverCpuMs: archiverMs,
    peerCpuMs: Math.round(receiverMs + packed.cpuMs),
    receiverCpuMs: receiverMs,
    zstdCpuMs: packed.cpuMs,
    archiverPeakMiB: Math.round(Number(peakKb) / 1024),
  }),
)
