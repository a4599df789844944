import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { startPostgres, type PostgresServer } from '../../../test/support/servers/postgres.ts'
import { parseLsn, parseSegmentName } from './lsn.ts'
import { WalWalker, type WalMark } from './wal-records.kernel.ts'

process.env['TZ'] = 'UTC' // pg_waldump writes local times

const load = `
  create table t (a int primary key, b text);
  insert into t select g, repeat('x', g % 3000) from generate_series(1, 4000) g;
  begin; insert into t values (-1, 'p'); prepare transaction 'one';
  create table u as select * from t limit 10;
  begin; insert into t values (-2, 'p'); drop table u; prepare transaction 'two';
  select pg_logical_emit_message(false, 'big', repeat('y', 300000));
  commit prepared 'one';
  select pg_switch_wal();
  begin; insert into t values (-3, 's'); savepoint a; insert into t values (-4, 's'); commit;
  select pg_create_restore_point('before the "mistake"');
  commit prepared 'two';
  update t set b = b || 'z';
`

test('the walker finds the commits and restore points that pg_waldump finds, however the bytes are cut', async () => {
  // pg_waldump is there for 17 alone; the log of the others is checked against their tables.
  await using server = await startPostgres({
    version: '17',
    settings: { max_prepared_transactions: '5', wal_level: 'logical' },
    initdb: ['--wal-segsize=1'],
  })
  const [before] = await server.query<{ file: string }>(
    'select pg_walfile_name(pg_switch_wal() + 1) as file',
  )
  for (const statement of load.split(/;\n/)) await server.query(statement)
  await server.query(
    "do $$ begin for i in 1..500 loop insert into t values (10000+i, 'c'); commit; end loop; end $$",
  )
  const [end] = await server.query<{ lsn: string; file: string }>(
    'select pg_current_wal_flush_lsn() as lsn, pg_walfile_name(pg_current_wal_flush_lsn()) as file',
  )
  const first = before?.file ?? ''
  const wal = readWal(server, first, parseLsn(end?.lsn ?? ''))
  const oracle = waldump(server, first, end?.lsn ?? '')
  assert.ok(oracle.length > 500, `only ${oracle.length} marks`)
  for (const piece of [1 << 30, 8192, 1000, 7, 1]) {
    const walker = new WalWalker(wal.first, 1 << 20)
    const marks: WalMark[] = []
    for (let at = 0; at < wal.bytes.length; at += piece) {
      marks.push(...walker.feed(wal.bytes.subarray(at, at + piece)))
    }
    assert.deepEqual(marks.map(show), oracle, `pieces of ${piece}`)
    assert.equal(walker.whole, wal.end, `pieces of ${piece}`)
  }
})

function show(mark: WalMark): string {
  const time = mark.kind === 'commit' ? ` ${mark.timeUs}` : ''
  return `${mark.start.toString(16)} ${mark.kind} ${mark.id}${time}`
}

function readWal(server: PostgresServer, name: string, end: bigint) {
  const first = parseSegmentName(name, 1 << 20)?.first ?? 0n
  const files: Buffer[] = []
  for (let at = first; at < end; at += 1n << 20n) {
    const file = name.slice(0, 16) + (at >> 20n).toString(16).toUpperCase().padStart(8, '0')
    files.push(readFileSync(path.join(server.dataDir, 'pg_wal', file)))
  }
  return { first, end, bytes: Buffer.concat(files).subarray(0, Number(end - first)) }
}

function waldump(server: PostgresServer, name: string, end: string): string[] {
  const said = server.tool(
    'pg_waldump',
    '--path',
    path.join(server.dataDir, 'pg_wal'),
    '--end',
    end,
    name,
    `${name.slice(0, 16)}${(parseLsn(end) >> 20n).toString(16).toUpperCase().padStart(8, '0')}`,
  )
  const marks: string[] = []
  for (const line of said.split('\n')) {
    const lsn = /lsn: ([0-9A-F]+\/[0-9A-F]+)/.exec(line)?.[1]
    if (lsn === undefined) continue
    const start = parseLsn(lsn).toString(16)
    const point = /desc: RESTORE_POINT (.*)$/.exec(line)?.[1]
    if (point !== undefined) marks.push(`${start} point ${point}`)
    const commit =
      /tx: +(\d+),.*desc: COMMIT(_PREPARED)? (?:(\d+): )?(\d{4}-\S+ \S+) (\S+?)[;]?(?: |$)/.exec(
        line,
      )
    if (commit) {
      const [, tx, , prepared, time] = commit
      marks.push(`${start} commit ${prepared ?? tx} ${toUs(time ?? '')}`)
    }
  }
  return marks
}

function toUs(local: string): bigint {
  const [seconds = '', fraction = '0'] = local.split('.')
  return BigInt(Date.parse(`${seconds}Z`)) * 1000n + BigInt(fraction.padEnd(6, '0'))
}
