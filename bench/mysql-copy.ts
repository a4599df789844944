// Tables of one MariaDB 10.11 into another, against the least that it can cost: SELECT INTO OUTFILE and LOAD DATA INFILE of two
// tables at once with the indexes made after the rows, and against mydumper and myloader at their thread counts.
// Usage: node bench/mysql-copy.ts [--rows 300000] [--rounds 3]
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
    rows: { type: 'string', default: '300000' },
    rounds: { type: 'string', default: '3' },
  },
})
const rows = Number(values.rows)
using scratch = new Scratch('bench-copy')
const settings = {
  'innodb-buffer-pool-size': '1G',
  'innodb-log-file-size': '512M',
  'innodb-flush-log-at-trx-commit': '2',
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
const sql = (port: number, text: string) =>
  execFileSync(client, [...connect(port), '-Ne', text]).toString()
sql(source.port, shopStatements(rows).join('; '))
sql(source.port, 'ANALYZE TABLE shop.narrow, shop.wide')
const { bin } = await service('mydumper@bookworm')
const env = { NODE_COMPILE_CACHE: path.join(home, 'build/compile-cache') }
const hide = { [scratch.path]: 'DIR', [home]: '.', 'dolphin-secret': '…' }
const runs: Run[] = []

async function run(tool: string, command: readonly string[]): Promise<void> {
  const cpu = () => cpuOfTree(source.pid) + cpuOfTree(target.pid)
  const before = cpu()
  const cost = await measure(command, env)
  const done = { step: 'copy', tool, cost, serverMs: cpu() - before }
  runs.push(done)
  printRun(done, command, hide)
  if (checksums(target.port) !== expected) throw new Error(`${tool} brought other rows`)
}

function checksums(port: number): string {
  return sql(port, 'CHECKSUM TABLE shop.narrow, shop.wide')
}

const expected = checksums(source.port)

function emptyTarget(): void {
  sql(target.port, 'DROP DATABASE IF EXISTS shop')
}

const keys: Readonly<Record<string, readonly string[]>> = {
  narrow: ['k'],
  wide: ['code', 'at'],
}

/** The way by hand: whole tables side by side over files that the servers write and read themselves. */
function byHand(folder: string): string {
  const at = (port: number) => `${client} ${connect(port).join(' ')} -Ne`
  const jobs = Object.entries(keys).map(([table, names]) => {
    const file = `${folder}/${table}.tsv`
    const out = `SET time_zone='+00:00'; SELECT * INTO OUTFILE '${file}' CHARACTER SET binary FROM shop.${table}`
    const drop = names.map((name) => `DROP KEY ${name}`).join(', ')
    const add = names.map((name) => `ADD KEY (${name})`).join(', ')
    const into = `SET time_zone='+00:00'; ALTER TABLE shop.${table} ${drop}; LOAD DATA INFILE '${file}' INTO TABLE shop.${table} CHARACTER SET binary; ALTER TABLE shop.${table} ${add}`
    return `(${at(source.port)} "${out}" && ${at(target.port)} "${into}") &`
  })
  const dump = `${source.bin}/mariadb-dump ${connect(source.port).join(' ')} --no-data --databases shop`
  return `set -e; ${dump} | ${client} ${connect(target.port).join(' ')}; ${jobs.join(' ')} wait; ${at(target.port)} 'ANALYZE TABLE shop.narrow, shop.wide'; rm -f ${folder}/*.tsv`
}

for (let round = 0; round < Number(values.rounds); round += 1) {
  emptyTarget()
  const state = scratch.join(`state-${round}`)
  mkdirSync(state)
  const cli = [path.join(home, 'node_modules/.bin/node'), path.join(home, 'src/cli/main.ts')]
  const ends = ['--from', source.url, '--to', target.url, '--state', state]
  await run('redoubt', [...cli, 'migrate', ...ends, '--include', 'shop', '--parallel', '2', '-q'])
  rmSync(state, { recursive: true, force: true })
  emptyTarget()
  await run('OUTFILE, LOAD DATA', ['sh', '-c', byHand(source.makeFolder('out'))])
  for (const threads of ['1', '2']) {
    emptyTarget()
    const folder = scratch.join(`dump-${threads}`)
    mkdirSync(folder)
    const [dump, load] = [path.join(bin, 'mydumper'), path.join(bin, 'myloader')]
    const from = `${dump} ${connect(source.port).join(' ')} --threads=${threads} --rows=100000 --database=shop --outputdir=${folder}`
    const to = `${load} ${connect(target.port).join(' ')} --threads=${threads} --directory=${folder} --overwrite-tables`
    await run(`mydumper, myloader t${threads}`, ['sh', '-c', `${from} && ${to}`])
    rmSync(folder, { recursive: true })
  }
}
printTable(runs, 'redoubt')
