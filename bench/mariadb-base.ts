// Logical base and restore of MariaDB 10.11 against mydumper with compression and myloader, at 1, 2 and 4 threads.
// Usage: node bench/mariadb-base.ts [--rows 500000] [--rounds 3]; a row of `wide` is about 450 bytes, of `narrow` 190.
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { startMariadb } from '../test/support/servers/mariadb.ts'
import { home, service } from '../test/support/servers/services.ts'
import { Scratch } from '../test/support/scratch.ts'
import { shopStatements } from './mariadb-shop.ts'
import { measure } from './measure.ts'
import { cpuOfTree } from './server-cpu.ts'
import { printRun, printTable, type Run } from './table.ts'

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '500000' },
    rounds: { type: 'string', default: '3' },
  },
})
const rows = Number(values.rows)
using scratch = new Scratch('bench-mariadb')
const settings = {
  'innodb-buffer-pool-size': '1G',
  'innodb-log-file-size': '512M',
  'innodb-flush-log-at-trx-commit': '1',
}
await using source = await startMariadb({ version: '10.11', settings })
await using target = await startMariadb({
  version: '10.11',
  settings: { ...settings, 'skip-log-bin': true },
})
const client = path.join(source.bin, 'mariadb')
const connect = (port: number) => [
  '--host=127.0.0.1',
  `--port=${port}`,
  '--user=root',
  '--password=dolphin-secret',
]
execFileSync(client, [...connect(source.port), '-e', shopStatements(rows).join('; ')])
const { bin } = await service('mydumper@bookworm')
const redoubt = [path.join(home, 'node_modules/.bin/node'), path.join(home, 'src/cli/main.ts')]
const env = { REDOUBT_VAULT_PASSWORD: 'bench' }
const vault = scratch.join('vault')
const hide = { [scratch.path]: 'DIR', [home]: '.', 'dolphin-secret': '…' }
const runs: Run[] = []

async function run(
  step: string,
  tool: string,
  command: readonly string[],
  stored: string,
): Promise<void> {
  const cpu = () => cpuOfTree(source.pid) + cpuOfTree(target.pid)
  const before = cpu()
  const cost = await measure(command, env)
  const serverMs = cpu() - before
  const storedBytes = Number(execFileSync('du', ['-sb', stored]).toString().split('\t')[0])
  const done = { step, tool, cost, serverMs, storedBytes }
  runs.push(done)
  printRun(done, command, hide)
}

function emptyTarget(): void {
  execFileSync(client, [...connect(target.port), '-e', 'DROP DATABASE IF EXISTS shop'])
}

function checksums(port: number): string {
  const sql = 'CHECKSUM TABLE shop.narrow, shop.wide'
  return execFileSync(client, [...connect(port), '-Ne', sql]).toString()
}

const expected = checksums(source.port)

function compare(tool: string): void {
  if (checksums(target.port) !== expected) throw new Error(`${tool} restored other rows`)
}

for (let round = 0; round < Number(values.rounds); round++) {
  rmSync(vault, { recursive: true, force: true })
  await measure([...redoubt, 'vault', 'init', '--vault', vault], env)
  const backup = [
    ...redoubt,
    'backup',
    '--source',
    source.url,
    '--vault',
    vault,
    '--name',
    'bench',
    '-q',
  ]
  await run('first base', 'redoubt', backup, vault)
  for (const threads of ['1', '2', '4']) {
    const dump = scratch.join(`dump-${threads}`)
    mkdirSync(dump)
    const flags = [
      ...connect(source.port),
      `--threads=${threads}`,
      '--compress',
      '--rows=100000',
      '--database=shop',
    ]
    await run(
      'first base',
      `mydumper t${threads}`,
      [path.join(bin, 'mydumper'), ...flags, `--outputdir=${dump}`],
      dump,
    )
  }
  await run('second base, unchanged', 'redoubt', backup, vault)
  emptyTarget()
  const restore = [
    ...redoubt,
    'restore',
    '--vault',
    vault,
    '--source',
    'bench',
    '--to',
    target.url,
    '--force',
    '-q',
  ]
  await run('restore', 'redoubt', restore, vault)
  compare('redoubt')
  for (const threads of ['1', '2', '4']) {
    const dump = scratch.join(`dump-${threads}`)
    emptyTarget()
    const flags = [
      ...connect(target.port),
      `--threads=${threads}`,
      `--directory=${dump}`,
      '--overwrite-tables',
    ]
    await run('restore', `myloader t${threads}`, [path.join(bin, 'myloader'), ...flags], dump)
    compare('myloader')
    rmSync(dump, { recursive: true })
  }
}
printTable(runs, 'redoubt')
