// Physical base and restore of MariaDB 10.11 against mariadb-backup through zstd at its default level and two threads.
// Usage: node bench/mariadb-physical.ts [--rows 500000] [--rounds 3]; see mariadb-shop.ts for the rows.
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { Scratch } from '../test/support/scratch.ts'
import { startMariadb } from '../test/support/servers/mariadb.ts'
import { home, service } from '../test/support/servers/services.ts'
import { shopStatements } from './mariadb-shop.ts'
import { measure, warmMemory } from './measure.ts'
import { cpuOfTree } from './server-cpu.ts'
import { printRun, printTable, type Run } from './table.ts'

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '500000' },
    rounds: { type: 'string', default: '3' },
  },
})
using scratch = new Scratch('bench-physical')
await using source = await startMariadb({
  version: '10.11',
  settings: { 'innodb-buffer-pool-size': '1G', 'innodb-log-file-size': '512M' },
})
const login = [
  '--host=127.0.0.1',
  `--port=${source.port}`,
  '--user=root',
  '--password=dolphin-secret',
]
const sql = shopStatements(Number(values.rows)).join('; ')
execFileSync(path.join(source.bin, 'mariadb'), [...login, '-e', sql])
// Pages that are written back between two bases would be changes.
await source.restart()
const zstd = path.join((await service('zstd@bookworm')).bin, 'zstd')
const program = (name: string) => path.join(source.bin, name)
const redoubt = [path.join(home, 'node_modules/.bin/node'), path.join(home, 'src/cli/main.ts')]
const env = {
  REDOUBT_VAULT_PASSWORD: 'bench',
  PATH: `${source.bin}${path.delimiter}${process.env['PATH']}`,
}
const hide = { [scratch.path]: 'DIR', [home]: '.', 'dolphin-secret': '…' }
const runs: Run[] = []

async function run(
  step: string,
  tool: string,
  command: readonly string[],
  stored: string,
): Promise<void> {
  const before = cpuOfTree(source.pid)
  const cost = await measure(command, env)
  const serverMs = cpuOfTree(source.pid) - before
  const storedBytes = Number(execFileSync('du', ['-sb', stored]).toString().split('\t')[0])
  const done = { step, tool, cost, serverMs, storedBytes }
  runs.push(done)
  printRun(done, command, hide)
}

const pipe = (line: string) => ['bash', '-c', `set -o pipefail; ${line}`]
const vault = scratch.join('vault')
const file = scratch.join('base.zst')
const directory = scratch.join('restored')
const peer = 'mariadb-backup, zstd -T2'
for (let round = 0; round < Number(values.rounds); round++) {
  rmSync(vault, { recursive: true, force: true })
  await measure([...redoubt, 'vault', 'init', '--vault', vault], env)
  const to = ['--vault', vault, '--name', 'bench', '-q']
  const backup = [...redoubt, 'backup', '--source', source.url, '--base', 'physical', ...to]
  await run('first base', 'redoubt', backup, vault)
  const flags = [...login, `--datadir=${source.dataDir}`, `--target-dir=${scratch.path}`]
  const copy = `${program('mariadb-backup')} --no-defaults --backup --stream=xbstream --parallel=2 ${flags.join(' ')}`
  await run('first base', peer, pipe(`${copy} | ${zstd} -q -f -T2 -o ${file}`), file)
  await run('second base, unchanged', 'redoubt', backup, vault)
  rmSync(directory, { recursive: true, force: true })
  const from = ['--vault', vault, '--source', 'bench', '--to', directory, '-q']
  const sizeBytes = Number(execFileSync('du', ['-sb', source.dataDir]).toString().split('\t')[0])
  warmMemory(sizeBytes)
  await run('restore', 'redoubt', [...redoubt, 'restore', ...from], vault)
  rmSync(directory, { recursive: true })
  mkdirSync(directory)
  warmMemory(sizeBytes)
  const prepare = `${program('mariadb-backup')} --no-defaults --prepare --target-dir=${directory}`
  const unpack = `${zstd} -q -d -c ${file} | ${program('mbstream')} -x -C ${directory}`
  await run('restore', peer, pipe(`${unpack} && ${prepare}`), file)
}
printTable(runs, 'redoubt')
