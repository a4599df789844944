// Base backup and restore of PostgreSQL 17 against pgBackRest with zstd and 2 processes, and pg_basebackup with
// server-side zstd as the limit. Usage: node bench/postgres-base.ts [--scale 60] [--rounds 3]; a pgbench scale is 15 MB.
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startPostgres } from '../test/support/servers/postgres.ts'
import { asServerUser, giveToServerUser, runAsServerUser } from '../test/support/servers/process.ts'
import { home, service } from '../test/support/servers/services.ts'
import { Scratch } from '../test/support/scratch.ts'
import { measure, warmMemory } from './measure.ts'
import { cpuOfTree } from './server-cpu.ts'
import { printRun, printTable, type Run } from './table.ts'

const { values } = parseArgs({
  options: { scale: { type: 'string', default: '60' }, rounds: { type: 'string', default: '3' } },
})
using scratch = new Scratch('bench-pg')
const tools = (await service('postgres17')).bin
const pgbackrest = path.join((await service('pgbackrest')).bin, 'pgbackrest')
const rest = scratch.join('rest')
mkdirSync(rest)
const config = path.join(rest, 'pgbackrest.conf')
await using server = await startPostgres({
  version: '17',
  settings: {
    shared_buffers: '512MB',
    max_wal_size: '4GB',
    summarize_wal: 'on',
    archive_mode: 'on',
    archive_command: `${pgbackrest} --config=${config} --stanza=bench archive-push %p`,
  },
})
const socket = path.dirname(server.dataDir)
writeFileSync(
  config,
  `[global]\nrepo1-path=${rest}/repo\ncompress-type=zst\nprocess-max=2\nlog-path=${rest}\nlock-path=${rest}\nstart-fast=y\n` +
    `[bench]\npg1-path=${server.dataDir}\npg1-port=${server.port}\npg1-socket-path=${socket}\npg1-user=postgres\n`,
)
giveToServerUser(rest)
const env = {
  PGPASSWORD: new URL(server.url).password,
  REDOUBT_VAULT_PASSWORD: 'bench',
  // As the launcher has it.
  NODE_COMPILE_CACHE: path.join(home, 'build/compile-cache'),
}
runAsServerUser(
  [
    `${tools}/pgbench`,
    '-i',
    '-q',
    '-s',
    values.scale,
    '-h',
    '127.0.0.1',
    '-p',
    String(server.port),
    '-U',
    'postgres',
    'postgres',
  ],
  { env },
)
runAsServerUser([pgbackrest, `--config=${config}`, '--stanza=bench', 'stanza-create'])
// Else the first of the contenders pays for writing down and archiving what pgbench made.
await server.query('checkpoint')
await server.query('select pg_switch_wal()')
const unarchived = `select from pg_ls_archive_statusdir() where name like '%.ready'`
while ((await server.query(unarchived)).length > 0) await setTimeout(500)
const redoubt = [path.join(home, 'node_modules/.bin/node'), path.join(home, 'src/cli/main.ts')]
const vault = scratch.join('vault')
const hide = { [scratch.path]: 'DIR', [home]: '.', [server.url]: 'URL' }
const runs: Run[] = []

async function run(
  step: string,
  tool: string,
  command: readonly string[],
  stored: string,
): Promise<void> {
  const before = cpuOfTree(server.pid)
  const cost = await measure(command, env)
  const serverMs = cpuOfTree(server.pid) - before
  const storedBytes = Number(execFileSync('du', ['-sb', stored]).toString().split('\t')[0])
  const done = { step, tool, cost, serverMs, storedBytes }
  runs.push(done)
  printRun(done, command, hide)
}

const asServer = (command: readonly string[]) => asServerUser(command).flat()

async function restoreOurs(): Promise<void> {
  const ours = scratch.join('restored-ours')
  const from = ['--vault', vault, '--source', 'bench', '--at', 'latest']
  const to = ['--to', ours, '--server-bin', tools, '-q']
  await run('restore', 'redoubt', [...redoubt, 'restore', ...from, ...to], vault)
  rmSync(ours, { recursive: true })
}

async function restoreTheirs(): Promise<void> {
  const theirs = path.join(rest, 'restored')
  mkdirSync(theirs, { mode: 0o700 })
  giveToServerUser(theirs)
  const options = [`--config=${config}`, '--stanza=bench', `--pg1-path=${theirs}`]
  await run(
    'restore',
    'pgbackrest zst, 2 processes',
    asServer([pgbackrest, ...options, 'restore']),
    rest,
  )
  rmSync(theirs, { recursive: true })
}

for (let round = 0; round < Number(values.rounds); round++) {
  rmSync(vault, { recursive: true, force: true })
  await measure([...redoubt, 'vault', 'init', '--vault', vault], env)
  const backup = [
    ...redoubt,
    'backup',
    '--source',
    server.url,
    '--vault',
    vault,
    '--name',
    'bench',
    '-q',
  ]
  await run('first base', 'redoubt', backup, vault)
  const basebackup = [
    `${tools}/pg_basebackup`,
    '-h',
    '127.0.0.1',
    '-p',
    String(server.port),
    '-U',
    'postgres',
  ]
  const tar = scratch.join('tar')
  await run(
    'first base',
    'pg_basebackup zstd',
    [...basebackup, '-D', tar, '-Ft', '-X', 'fetch', '-c', 'fast', '--compress=server-zstd:3'],
    scratch.path,
  )
  rmSync(tar, { recursive: true })
  const full = asServer([
    pgbackrest,
    `--config=${config}`,
    '--stanza=bench',
    '--type=full',
    '--repo1-retention-full=1',
    'backup',
  ])
  await run('first base', 'pgbackrest zst, 2 processes', full, path.join(rest, 'repo'))
  await run('second base, unchanged', 'redoubt', backup, vault)
  await run(
    'second base, unchanged',
    'pgbackrest zst, 2 processes',
    asServer([pgbackrest, `--config=${config}`, '--stanza=bench', '--type=incr', 'backup']),
    path.join(rest, 'repo'),
  )
  for (const restore of [restoreOurs, restoreTheirs]) {
    warmMemory(Number(values.scale) * 2 ** 24)
    await restore()
  }
}
printTable(runs, 'redoubt')
