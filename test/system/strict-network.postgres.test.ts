import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commitOverBadNetwork } from '../support/bad-network.ts'
import { Guarded, hear, untilGuarded } from '../support/guarded.ts'
import { type PostgresServer, startPostgres } from '../support/servers/postgres.ts'
import { ServerProcess } from '../support/servers/process.ts'

test('strict over a bad network: PostgreSQL loses no commit that returned, and goes on when it heals', async () => {
  await using server = await startPostgres()
  await server.query('create table t (n int primary key)')
  using guarded = await Guarded.begin('strict-network')
  await waitFor(server, 'FIRST 1 (redoubt_shop)')
  const returned = await commitOverBadNetwork(
    {
      url: server.url,
      port: server.port,
      insert: (n) => server.query('insert into t values ($1)', [n]),
      kill9: () => server.kill9(),
    },
    guarded,
  )
  const to = guarded.scratch.join('restored')
  await guarded.restored('--to', to)
  await using target = await startPostgres({ dataDir: to })
  const rows = await target.query<{ n: number }>('select n from t order by n')
  assert.deepEqual(
    rows.map((row) => row.n),
    returned.toSorted((a, b) => a - b),
  )
})

test('a PostgreSQL that stops waiting is told of, and so is its return', async () => {
  await using server = await startPostgres()
  await server.query('create table t (n int primary key)')
  using guarded = await Guarded.begin('strict-alarm')
  await waitFor(server, 'FIRST 1 (redoubt_shop)')
  await using protection = guarded.protect(server.url, ['--durability', 'strict'])
  await untilGuarded(protection)
  await waitFor(server, '')
  const alarm = await hear(protection, ({ degraded }) => degraded !== undefined)
  assert.match(String(alarm.degraded), /does not name redoubt_shop/)
  const shown = await guarded.untilWindow(({ degraded }) => degraded !== undefined)
  assert.match(String(shown.degraded?.said), /does not name redoubt_shop/)
  assert.equal(shown.degraded?.sinceMs, alarm.degradedSinceMs)
  await waitFor(server, 'FIRST 1 (other, redoubt_shop)')
  await hear(protection, ({ degraded }) => degraded === undefined)
  const other = receiver(server, 'other')
  const second = await hear(protection, ({ degraded }) => degraded !== undefined)
  assert.match(String(second.degraded), /another standby comes before redoubt_shop/)
  await other.end('SIGTERM')
  await hear(protection, ({ degraded }) => degraded === undefined)
  await guarded.untilWindow(({ degraded }) => degraded === undefined)
  await server.query('insert into t values (1)')
})

async function waitFor(server: PostgresServer, standbys: string): Promise<void> {
  await server.query(`alter system set synchronous_standby_names = '${standbys}'`)
  await server.query('select pg_reload_conf()')
}

/** A stock standby of that name, which acknowledges at once. */
function receiver(server: PostgresServer, name: string): ServerProcess {
  const folder = server.makeFolder(name)
  const command = [`${server.bin}/pg_receivewal`, '--synchronous', '-D', folder]
  const url = `${server.url}?application_name=${name}`
  return new ServerProcess([...command, '-d', url], `${folder}.log`)
}
