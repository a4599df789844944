import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refused } from '../support/command.ts'
import { Guarded, untilGuarded, untilNewBase, untilShipped } from '../support/guarded.ts'
import { startPostgres } from '../support/servers/postgres.ts'

test('log that PostgreSQL recycled unread is a gap: moments in it are refused, both its ends come back', async () => {
  await using server = await startPostgres({ initdb: ['--wal-segsize=1'] })
  await server.query('create table t (n int primary key); create table filler (n int)')
  using guarded = await Guarded.begin('moments')
  const insert = (n: number) => server.query('insert into t values ($1)', [n])
  let firstBase: string | undefined
  {
    await using protection = guarded.protect(server.url)
    firstBase = (await untilGuarded(protection)).lastBase
    await insert(1)
    await untilShipped(protection)
  }
  await insert(2)
  const [row] = await server.query<{ at: string }>(
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
  )
  const inside = row?.at ?? ''
  // The slot goes while nobody looks, and with it the log.
  await server.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots')
  for (let round = 0; round < 2; round++) {
    await server.query('insert into filler select generate_series(1, 40000)')
    await server.query('select pg_switch_wal()')
    await server.query('checkpoint')
  }
  await insert(3)
  {
    await using protection = guarded.protect(server.url)
    await untilNewBase(protection, firstBase)
    await insert(4)
    await untilShipped(protection)
  }
  const report = await guarded.window()
  assert.equal(report.gaps.length, 1, JSON.stringify(report))
  const [before, after] = report.windows
  assert.ok(before?.continuous && after?.continuous, JSON.stringify(report))
  const restoreAt = (at: string, to: string) => guarded.restore('--to', to, '--at', at)
  const ends = [timeOf(before.toUs), timeOf(after.fromUs)]
  const nowhere = guarded.scratch.join('nowhere')
  const error = refused(await restoreAt(inside, nowhere), inside, 1, /lies in a gap of the log/)
  assert.equal(error.code, 'gap')
  for (const end of ends) assert.ok(error.hint?.includes(end), `${end}: ${error.hint}`)
  refused(await restoreAt('2001-01-01', nowhere), 'before all', 5, /the oldest moment .* is 20/)
  refused(await restoreAt('2999-01-01', nowhere), 'in the future', 5, /the newest moment .* is 20/)
  for (const [at, rows] of [
    [ends[0], [1]],
    [ends[1], [1, 2, 3]],
    ['latest', [1, 2, 3, 4]],
  ] as const) {
    const to = guarded.scratch.join(`restored-${rows.length}`)
    const ran = await restoreAt(String(at), to)
    assert.equal(ran.code, 0, ran.said)
    await using target = await startPostgres({ dataDir: to, readyMs: 60_000 })
    const found = await target.query<{ n: number }>('select n from t order by n')
    assert.deepEqual(
      found.map(({ n }) => n),
      rows,
      String(at),
    )
  }
})

function timeOf(us: string): string {
  return `${new Date(Number(BigInt(us) / 1000n)).toISOString().slice(0, -1)}${us.slice(-3)}Z`
}
