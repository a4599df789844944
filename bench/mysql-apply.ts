// Catching up changes of a live server: our applying, one lane, against the native replica with several numbers of threads. What
// counts is the CPU time of the target, which is the bottleneck, and our own; the walls are those of two cores for all.
// Usage: node bench/mysql-apply.ts [--family mariadb|mysql] [--transactions 20000] [--keys 20000] [--hot] [--threads 0,2,4] [--together 1,200,2000]
import { parseArgs } from 'node:util'
import { Dice } from '../test/support/dice.ts'
import { Follow } from '../test/support/mysql-apply.ts'
import { checksums } from '../test/support/mysql-family-harness.ts'
import { positionOf } from '../test/support/mysql-mirror.ts'
import { startMariadb } from '../test/support/servers/mariadb.ts'
import { type FamilyServer, rootPassword } from '../test/support/servers/mysql-family.ts'
import { startMysql } from '../test/support/servers/mysql.ts'
import { cpuOfTree } from './server-cpu.ts'

const { values } = parseArgs({
  options: {
    family: { type: 'string', default: 'mariadb' },
    transactions: { type: 'string', default: '20000' },
    keys: { type: 'string', default: '20000' },
    together: { type: 'string', default: '1,200,2000' },
    threads: { type: 'string', default: '0,2,4' },
    hot: { type: 'boolean', default: false },
  },
})
const isMysql = values.family === 'mysql'
const start = isMysql ? startMysql : startMariadb
const keys = Number(values.keys)
const settings = {
  'innodb-flush-log-at-trx-commit': '2',
  'sync-binlog': '0',
  'innodb-buffer-pool-size': '256M',
}

await using source = await start({ settings })
await begin(source)
const after = await positionOf(source)
const place = await placeOf(source)
const rows = await load(source)
const goal = await placeOf(source)
const expected = (await checksums(source))['d.t']

for (const threads of numbers(values.threads)) {
  await run(`native replica, ${threads} threads`, async (target) => replicate(target, threads))
}
for (const together of numbers(values.together)) {
  await run(`redoubt, ${together} transactions in one`, async (target) => {
    await using follow = await Follow.open(source, target, after, { together, rowsMax: 5000 })
    await follow.catchUp()
  })
}

function numbers(text: string): number[] {
  return text
    .split(',')
    .filter((one) => one !== '')
    .map(Number)
}

async function run(name: string, catchUp: (target: FamilyServer) => Promise<void>): Promise<void> {
  await using target = await start({ settings })
  await begin(target)
  const before = { target: cpuOfTree(target.pid), source: cpuOfTree(source.pid) }
  const own = process.cpuUsage()
  const begun = performance.now()
  await catchUp(target)
  const wall = (performance.now() - begun) / 1000
  const { user, system } = process.cpuUsage(own)
  const spent = (cpuOfTree(target.pid) - before.target) / 1000
  const sent = (cpuOfTree(source.pid) - before.source) / 1000
  const sum = (await checksums(target))['d.t']
  if (sum !== expected) throw new Error(`${name}: ${sum} is not ${expected}`)
  const mine = (user + system) / 1e6
  process.stdout.write(
    `${name}: ${rows} rows, target ${spent.toFixed(2)} CPU s (${((spent / rows) * 1e6).toFixed(1)} us a row), source ${sent.toFixed(2)}, own ${mine.toFixed(2)}, wall ${wall.toFixed(1)} s\n`,
  )
}

async function begin(server: FamilyServer): Promise<void> {
  await server.query(
    `create database d; create table d.t (id bigint primary key, a int, b smallint, v varchar(100), c char(20), n decimal(12,2), at datetime(3), w varchar(200), key (a)) character set utf8mb4`,
  )
  for (let from = 0; from < keys; from += 2000) {
    const list = Array.from({ length: Math.min(2000, keys - from) }, (_, index) => {
      const id = from + index
      return `(${id}, ${id * 7}, ${id % 3000}, lpad(hex(${id}), 32, 'x'), 'short text', ${id} / 3, '2026-01-01', repeat('w', ${id % 90}))`
    })
    await server.query(`insert into d.t values ${list.join(',')}`)
  }
}

/** Transactions of some rows each, as an application writes them; returns how many rows were changed. */
async function load(server: FamilyServer): Promise<number> {
  const dice = new Dice(7)
  await using client = await server.connect('d')
  let count = 0
  let next = keys
  let text = ''
  const range = values.hot ? Math.ceil(keys / 50) : keys
  for (let transaction = 0; transaction < Number(values.transactions); transaction++) {
    text += 'begin;'
    for (let change = 0; change < 4; change++) {
      const id = dice.roll(range)
      if (dice.roll(10) < 7)
        text += `update t set a = a + 1, v = reverse(v), at = now(3) where id = ${id};`
      else
        text += `insert into t values (${next++}, ${id}, 5, lpad(hex(${id}), 32, 'x'), 'new', 1.5, now(3), 'text of it');`
      count += 1
    }
    text += 'commit;'
    if (text.length > 100_000) {
      await client.query(text)
      text = ''
    }
  }
  await client.query(text)
  return count
}

type LogPlace = { readonly file: string; readonly offset: number }

async function placeOf(server: FamilyServer): Promise<LogPlace> {
  const sql = isMysql ? 'show binary log status' : 'show master status'
  const [row] = await server.query<{ File: string; Position: number }>(sql)
  return { file: row?.File ?? '', offset: Number(row?.Position) }
}

async function replicate(target: FamilyServer, threads: number): Promise<void> {
  if (isMysql) {
    await target.query(
      `set global replica_parallel_workers = ${threads};
       change replication source to source_host = '127.0.0.1', source_port = ${source.port}, source_user = 'root',
       source_password = '${rootPassword}', source_log_file = '${place.file}', source_log_pos = ${place.offset}, get_source_public_key = 1;
       start replica`,
    )
    await target.query(`select source_pos_wait('${goal.file}', ${goal.offset})`)
    return
  }
  await target.query(
    `set global slave_parallel_threads = ${threads}; set global slave_parallel_mode = 'optimistic';
     change master to master_host = '127.0.0.1', master_port = ${source.port}, master_user = 'root', master_password = '${rootPassword}',
     master_log_file = '${place.file}', master_log_pos = ${place.offset}; start slave`,
  )
  await target.query(`select master_pos_wait('${goal.file}', ${goal.offset})`)
}
