import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Protection } from '../../src/demo/redoubt.ts'
import { parseLsn, toAt } from '../../src/engines/postgres/lsn.ts'
import { Guarded, hear, untilGuarded } from '../support/guarded.ts'
import { startFakeClock } from '../support/servers/faketime.ts'
import { type PostgresServer, startPostgres } from '../support/servers/postgres.ts'

test('the clock of the archiver steps to and fro: no moment is lost, and none is promised that was not reached', async () => {
  await using server = await startPostgres({ initdb: ['--wal-segsize=1'] })
  await server.query('create table t (n int primary key)')
  using guarded = await Guarded.begin('archiver-clock')
  using clock = await startFakeClock(guarded.scratch.join('clock'))
  const protection = guarded.protect(server.url, [], clock.env)
  await using _ = protection
  await untilGuarded(protection)
  const moments: string[] = []
  for (const [index, aheadSeconds] of [0, -3600, 3600].entries()) {
    clock.step(aheadSeconds)
    await server.query('insert into t values ($1)', [index])
    moments.push(await momentAfterAll(server))
    await untilStored(protection, server)
  }
  await server.query('insert into t values (99)')
  await untilStored(protection, server)
  assert.doesNotMatch(String(protection.news?.said), /another archiver|lease/)
  await protection[Symbol.asyncDispose]()
  const report = await guarded.window()
  assert.deepEqual(report.gaps, [])
  const [window] = report.windows
  assert.ok(window && report.windows.length === 1, JSON.stringify(report))
  const nowUs = BigInt(Date.now()) * 1000n
  assert.ok(BigInt(window.fromUs) < BigInt(window.toUs), JSON.stringify(window))
  assert.ok(BigInt(window.toUs) <= nowUs, `${window.toUs} is promised at ${nowUs}`)
  for (const index of [1, 2]) {
    const to = guarded.scratch.join(`restored-${index}`)
    await guarded.restored('--to', to, '--at', moments[index] ?? '')
    await using target = await startPostgres({ dataDir: to, readyMs: 60_000 })
    const rows = await target.query<{ n: number }>('select n from t order by n')
    assert.deepEqual(
      rows.map(({ n }) => n),
      Array.from({ length: index + 1 }, (__, n) => n),
    )
  }
})

/** Until the vault has the server's log to its present end: by positions, whatever clocks say. */
async function untilStored(protection: Protection, server: PostgresServer): Promise<void> {
  const [row] = await server.query<{ lsn: string }>('select pg_current_wal_flush_lsn() as lsn')
  const end = toAt(parseLsn(row?.lsn ?? ''))
  await hear(protection, ({ vaults }) => (vaults[0]?.durable ?? '') >= end)
}

async function momentAfterAll(server: PostgresServer): Promise<string> {
  const [row] = await server.query<{ at: string }>(
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
  )
  return row?.at ?? ''
}
