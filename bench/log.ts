// The log of a PostgreSQL under 1,000 commits a second: how long until a commit is durable in the vault, and what
// archiving costs against pg_receivewal with zstd -1 behind it. Usage: node bench/log.ts [--seconds 20] [--rate 1000]
// [--rounds 1]. Prints one line of JSON a run, with the command lines.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { Scratch } from '../test/support/scratch.ts'
import {
  postgresPassword,
  type PostgresServer,
  startPostgres,
} from '../test/support/servers/postgres.ts'
import { home, service } from '../test/support/servers/services.ts'
import { measure } from './measure.ts'
import { cpuOfTree } from './server-cpu.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '20' },
    rate: { type: 'string', default: '1000' },
    rounds: { type: 'string', default: '1' },
  },
})
const env = { ...process.env, PGPASSWORD: postgresPassword }

/** Commits at a steady rate until the time is over. */
async function load(server: PostgresServer, scratch: Scratch): Promise<string> {
  const script = scratch.join('load.sql')
  writeFileSync(
    script,
    "insert into bench (note) values (md5(random()::text) || repeat('x', 60 + (random() * 80)::int));\n",
  )
  const args = ['-n', '-f', script, '-c', '4', '-j', '1', '-R', values.rate, '-T', values.seconds]
  const at = ['-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres', 'postgres']
  const command = [path.join(server.bin, 'pgbench'), ...args, ...at]
  const child = spawn(command[0] ?? '', command.slice(1), {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const said: Buffer[] = []
  child.stdout.on('data', (bytes: Buffer) => said.push(bytes))
  const [code] = (await once(child, 'close')) as [number]
  if (code !== 0) throw new Error(`pgbench ended with ${code}`)
  return /tps = ([\d.]+)/.exec(Buffer.concat(said).toString())?.[1] ?? ''
}

async function ours(server: PostgresServer, scratch: Scratch): Promise<void> {
  const program = path.join(home, 'bench/log-archiver.ts')
  const prof = process.env['REDOUBT_BENCH_PROF']
  const profArgs = prof ? ['--cpu-prof', `--cpu-prof-dir=${prof}`] : []
  const args = [...profArgs, program, server.url, scratch.join('vault'), scratch.join('state')]
  const child = spawn(path.join(home, 'node_modules/.bin/node'), args, {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  await lines.next()
  child.kill('SIGUSR2')
  const tps = await load(server, scratch)
  await new Promise((resolve) => setTimeout(resolve, 1000))
  child.kill('SIGTERM')
  const { value } = await lines.next()
  await once(child, 'close')
  const result = JSON.parse(String(value)) as object
  const storedBytes = Number(
    execFileSync('du', ['-sb', scratch.join('vault/log')])
      .toString()
      .split('\t')[0],
  )
  console.log(JSON.stringify({ tool: 'redoubt', tps, ...result, storedBytes, load: loadavg()[0] }))
}

async function peer(server: PostgresServer, scratch: Scratch): Promise<void> {
  const folder = scratch.join('wal')
  mkdirSync(folder)
  const at = ['-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres']
  const command = [path.join(server.bin, 'pg_receivewal'), '-D', folder, '--synchronous', ...at]
  execFileSync(command[0] ?? '', [...command.slice(1), '--slot=peer', '--create-slot'], { env })
  const child = spawn(command[0] ?? '', [...command.slice(1), '--slot=peer'], {
    env,
    stdio: 'ignore',
  })
  const tps = await load(server, scratch)
  const receiveMs = cpuOfTree(child.pid ?? 0)
  child.kill('SIGINT')
  await once(child, 'close')
  const { bin } = await service('zstd@bookworm')
  const files = readdirSync(folder).map((name) => path.join(folder, name))
  const zstd = [path.join(bin, 'zstd'), '-1', '-q', '-T1', ...files]
  const { cpuMs } = await measure(zstd)
  const cost = { cpuMs: receiveMs + cpuMs, receiveMs, zstdMs: cpuMs }
  const shown = `pg_receivewal --synchronous --slot=peer; zstd -1 -q -T1`
  console.log(JSON.stringify({ tool: shown, tps, ...cost, load: loadavg()[0] }))
}

for (let round = 0; round < Number(values.rounds); round++) {
  for (const run of [ours, peer]) {
    using scratch = new Scratch('bench-log')
    await using server = await startPostgres({ settings: { wal_level: 'replica' } })
    await server.query('create table bench (id bigserial primary key, note text)')
    await run(server, scratch)
  }
}
