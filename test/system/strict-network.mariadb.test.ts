import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commitOverBadNetwork } from '../support/bad-network.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { Guarded, hear, untilGuarded } from '../support/guarded.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

/** From here on every commit waits for a replica: for ours. */
function waitForUs(timeoutMs: number): string {
  return `set global rpl_semi_sync_master_wait_point = AFTER_SYNC;
    set global rpl_semi_sync_master_timeout = ${timeoutMs}; set global rpl_semi_sync_master_enabled = ON`
}

test('strict over a bad network: MariaDB loses no commit that returned, and goes on when it heals', async () => {
  await using server = await startMariadb()
  await server.query('create database shop; create table shop.t (n int primary key)')
  await server.query(waitForUs(4_294_967_295))
  using guarded = await Guarded.begin('strict-network')
  const returned = await commitOverBadNetwork(
    {
      url: server.url,
      port: server.port,
      insert: (n) => server.query('insert into shop.t values (?)', [n]),
      kill9: () => server.kill9(),
    },
    guarded,
  )
  await using target = await startMariadb()
  await guarded.restored('--to', target.url)
  const rows = await target.query<{ n: number }>('select n from shop.t order by n')
  assert.deepEqual(
    rows.map((row) => row.n),
    returned.toSorted((a, b) => a - b),
  )
})

test('a MariaDB that stops waiting is told of, and so is its return', async () => {
  await using server = await startMariadb()
  await server.query('create database shop; create table shop.t (n int primary key)')
  await server.query(waitForUs(1500))
  await using proxy = await FaultProxy.start({ port: server.port })
  using guarded = await Guarded.begin('strict-alarm')
  const url = server.url.replace(`:${server.port}/`, `:${proxy.port}/`)
  await using protection = guarded.protect(url, ['--durability', 'strict'])
  await untilGuarded(protection)
  // So slow that the server gives up waiting, for half a second only, with each commit: the alarm lasts as long as they come.
  proxy.set({ delayMs: 1000 })
  let next = 1
  let late = true
  const committing = (async () => {
    while (late) await server.query('insert into shop.t values (?)', [next++])
  })()
  try {
    const alarm = await hear(protection, ({ degraded }) => degraded !== undefined)
    assert.match(String(alarm.degraded), /fell back to asynchronous/)
    const shown = await guarded.untilWindow(
      ({ degraded }) =>
        degraded !== undefined && degraded.sinceMs === protection.news?.degradedSinceMs,
    )
    assert.match(String(shown.degraded?.said), /fell back to asynchronous/)
  } finally {
    late = false
    proxy.set({})
    await committing
  }
  await hear(protection, ({ degraded }) => degraded === undefined)
  await guarded.untilWindow(({ degraded }) => degraded === undefined)
  await server.query('insert into shop.t values (?)', [next])
})
