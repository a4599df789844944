// A whole database from one PostgreSQL 17 to another, against the least that it can cost: the tables made by pg_dump and
// psql, binary COPY piped from psql to psql, two at a time, then indexes and keys, and ANALYZE.
// Usage: node bench/postgres-copy.ts [--rows 400000] [--rounds 3]
import { mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { type PostgresServer, startPostgres } from '../test/support/servers/postgres.ts'
import { home, service } from '../test/support/servers/services.ts'
import { Scratch } from '../test/support/scratch.ts'
import { measure } from './measure.ts'
import { cpuOfTree } from './server-cpu.ts'
import { printRun, printTable, type Run } from './table.ts'

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '400000' },
    rounds: { type: 'string', default: '3' },
  },
})
using scratch = new Scratch('bench-copy')
const tools = (await service('postgres17')).bin
const settings = { shared_buffers: '256MB', max_wal_size: '4GB' }
await using source = await startPostgres({ version: '17', settings })
await using target = await startPostgres({ version: '17', settings })
const rows = Number(values.rows)

// Two of each shape, so that two sessions have something to do.
const shapes: Readonly<Record<string, string>> = {
  small: [1, 2]
    .map(
      (
        i,
      ) => `create table small_${i} (id bigint primary key, k int not null, at timestamptz not null, name text not null, amount numeric(12,2));
      insert into small_${i} select i, i % 1000, now() + i * interval '1 s', 'name of ' || i, i / 7.0 from generate_series(1, ${rows}) i;
      create index on small_${i} (k)`,
    )
    .join(';'),
  wide: [1, 2]
    .map(
      (i) => `create table wide_${i} (id bigint primary key, a text, b text, c jsonb);
      insert into wide_${i} select i, repeat(md5(i::text), 20), repeat(md5((i * 7)::text), 30), jsonb_build_object('n', i, 'pad', repeat(md5(i::text), 8))
      from generate_series(1, ${Math.round(rows / 8)}) i`,
    )
    .join(';'),
}

const env = {
  PGPASSWORD: new URL(source.url).password,
  PGUSER: 'postgres',
  PGHOST: '127.0.0.1',
  NODE_COMPILE_CACHE: path.join(home, 'build/compile-cache'),
}
const hide = { [scratch.path]: 'DIR', [home]: '.', [`:${env.PGPASSWORD}@`]: '@' }
const runs: Run[] = []

async function run(step: string, tool: string, command: readonly string[]): Promise<void> {
  await target.query('checkpoint')
  const servers = [source, target]
  const cpu = () => servers.reduce((sum, server) => sum + cpuOfTree(server.pid), 0)
  const before = cpu()
  const cost = await measure(command, env)
  const done = { step, tool, cost, serverMs: cpu() - before }
  runs.push(done)
  printRun(done, command, hide)
}

const at = (server: PostgresServer, database: string) => `-p ${server.port} ${database}`

/** The way by hand, as a script. */
function byHand(database: string, tables: readonly string[]): string {
  const [dump, from, to] = [
    `${tools}/pg_dump ${at(source, database)}`,
    `${tools}/psql -qX ${at(source, database)}`,
    `${tools}/psql -qX ${at(target, database)}`,
  ]
  const copies = tables.map(
    (table) =>
      `${from} -c 'copy ${table} to stdout (format binary)' | ${to} -c 'copy ${table} from stdin (format binary)' &`,
  )
  const analyse = `${to} -c 'analyze' >/dev/null`
  return `set -e; ${dump} -s --section=pre-data | ${to} >/dev/null; ${copies.join(' ')} wait; ${dump} -s --section=post-data | ${to} >/dev/null; ${analyse}`
}

for (const [shape, sql] of Object.entries(shapes)) {
  await source.query(`create database ${shape}`)
  await source.query(sql, undefined, shape)
  await source.query('vacuum analyze', undefined, shape)
}
await source.query('checkpoint')

for (let round = 0; round < Number(values.rounds); round += 1) {
  for (const shape of Object.keys(shapes)) {
    const fresh = async () => {
      await target.query(`drop database if exists ${shape}`)
      await target.query(`create database ${shape} template template0`)
    }
    await fresh()
    const state = scratch.join(`state-${round}-${shape}`)
    mkdirSync(state)
    const cli = [path.join(home, 'node_modules/.bin/node'), path.join(home, 'src/cli/main.ts')]
    const ends = ['--from', source.urlOf(shape), '--to', target.urlOf(shape), '--state', state]
    await run(shape, 'redoubt', [...cli, 'migrate', ...ends, '--parallel', '2', '-q'])
    await fresh()
    const script = byHand(shape, [`${shape}_1`, `${shape}_2`])
    await run(shape, 'COPY | COPY', ['sh', '-c', script])
    rmSync(state, { recursive: true, force: true })
  }
}
printTable(runs, 'redoubt')
