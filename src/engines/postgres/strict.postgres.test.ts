import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { restored, World } from '../../../test/support/postgres-world.ts'
import type { PostgresServer } from '../../../test/support/servers/postgres.ts'
import { postgres } from './postgres.ts'

/** Inserts one number after the other until the server dies; returns those of which it saw the commit return. */
async function writeUntilDeath(server: PostgresServer, onCommit: (value: number) => void) {
  const seen: number[] = []
  try {
    await using client = await server.connect()
    for (let value = 1; ; value += 1) {
      await client.query(`insert into t values (${value})`)
      seen.push(value)
      onCommit(value)
    }
  } catch (error) {
    assert.ok(error instanceof Error)
    return seen
  }
}

test('strict: what a commit returned for is in the log when the server is killed at any moment', async () => {
  for (const killAt of [1, 17, 60]) {
    await using world = await World.begin()
    const { server } = world
    await server.query('create table t (a int primary key)')
    await world.caughtUp()
    await world.stopArchiving()
    await server.query("alter system set synchronous_standby_names = 'FIRST 1 (redoubt_shop)'")
    await server.query('select pg_reload_conf()')

    const stop = new AbortController()
    const open = { signal: stop.signal, log: silentLog }
    await using engine = await postgres.open(server.url, open)
    await using source = await engine.openLog({
      log: silentLog,
      name: 'shop',
      durability: 'strict',
    })
    const reading = (async () => {
      for await (const item of source.read(world.log.durable(), { signal: stop.signal })) {
        if (item.kind !== 'block') continue
        await world.log.append(item)
        await source.ack({ history: item.history, at: item.next })
      }
    })().catch((error: unknown) => {
      if (!stop.signal.aborted) throw error
    })

    const { promise: reached, resolve } = Promise.withResolvers<void>()
    const writing = writeUntilDeath(server, (value) => {
      if (value >= killAt) resolve()
    })
    await reached
    await server.kill9()
    const seen = await writing
    stop.abort()
    await reading
    await restored(world.request({ kind: 'latest' }), async (client) => {
      const { rows } = await client.query('select a from t order by a')
      const values = rows.map((row: { a: number }) => row.a)
      assert.deepEqual(values.slice(0, seen.length), seen)
      assert.ok(values.length <= seen.length + 1, 'at most the commit in flight comes with them')
      // The restored server waits for nobody.
      await client.query('insert into t values (-1)')
    })
  }
})
