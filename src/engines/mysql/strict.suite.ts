import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import type { LogBlock, Position } from '#change'
import { Capture, type StartServer, until } from '../../../test/support/mysql-family-harness.ts'
import { FaultProxy } from '../../../test/support/fault-proxy.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { mysql } from './mysql.ts'

/** Settings of a source whose commits wait for a replica, by the words of its version. */
function semiSync(word: 'master' | 'source', timeoutMs: number): Record<string, string> {
  return {
    ...(word === 'source' ? { 'plugin-load-add': 'semisync_source.so' } : {}),
    [`loose-rpl-semi-sync-${word}-enabled`]: 'ON',
    [`loose-rpl-semi-sync-${word}-timeout`]: String(timeoutMs),
    [`loose-rpl-semi-sync-${word}-wait-point`]: 'AFTER_SYNC',
  }
}

/** What a server without the plugin must say. */
export function noStrictTests(start: StartServer): void {
  test('strict is refused where commits cannot wait (this server has no semi-synchronous replication)', async () => {
    await using server = await start()
    const signal = AbortSignal.timeout(600_000)
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    const findings = await engine.probe('protect-strict', { signal })
    const blocking = findings.filter((finding) => finding.severity === 'blocks')
    assert.deepEqual(
      blocking.map((finding) => finding.code),
      ['no-semi-sync'],
    )
  })
}

/** `strict`: the source's commits wait for our word. */
export function strictTests(start: StartServer, word: 'master' | 'source'): void {
  const status = async (server: FamilyServer, name: string) => {
    const [row] = await server.query<{ Value: string }>(
      `show global status like 'Rpl_semi_sync_${word}_${name}'`,
    )
    return row?.Value
  }

  test('every commit is acknowledged, and none is without', async () => {
    await using server = await start({ settings: semiSync(word, 600_000) })
    await using capture = await Capture.start(server.url, { durability: 'strict', acks: true })
    await server.query('create database d; create table d.t (a int)')
    for (let i = 0; i < 100; i++) await server.query('insert into d.t values (?)', [i])
    await server.query('flush binary logs; insert into d.t values (1)')
    await capture.caughtUp(server)
    assert.equal(await status(server, 'no_tx'), '0')
    assert.ok(Number(await status(server, 'yes_tx')) >= 103)
    assert.equal(await status(server, 'clients'), '1')
  })

  test('a commit returns only after its acknowledgement', async () => {
    await using server = await start({ settings: semiSync(word, 600_000) })
    const signal = AbortSignal.timeout(600_000)
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    await using source = await engine.openLog({
      log: silentLog,
      name: 'held',
      durability: 'strict',
    })
    const stop = new AbortController()
    const blocks: LogBlock[] = []
    let open = true
    const ack = (at: Position) => source.ack(at)
    const reading = (async () => {
      for await (const item of source.read(undefined, { signal: stop.signal })) {
        if (item.kind !== 'block') continue
        blocks.push(item)
        if (open) await ack({ history: item.history, at: item.next })
      }
    })().catch((error: unknown) => {
      if (!stop.signal.aborted) throw error
    })
    await until(async () => (await status(server, 'clients')) === '1', 'the replica')
    await server.query('create database d; create table d.t (a int)')
    open = false
    blocks.length = 0
    let returned = false
    const insert = server.query('insert into d.t values (1)').then(() => {
      returned = true
    })
    await until(() => blocks.at(-1)?.commits.length === 1, 'the commit to come')
    const last = blocks.at(-1)
    assert.equal(returned, false)
    assert.ok(last)
    await ack({ history: last.history, at: last.next })
    await insert
    stop.abort()
    await reading
  })

  test('an acknowledgement that was lost on the way is said again', async () => {
    await using server = await start({ settings: semiSync(word, 600_000) })
    await using proxy = await FaultProxy.start({ port: server.port })
    const url = server.url.replace(`:${server.port}/`, `:${proxy.port}/`)
    await using capture = await Capture.start(url, { durability: 'strict', acks: true })
    await server.query('create database d; create table d.t (a int)')
    await capture.caughtUp(server)
    // Shorter than any connection is taken for dead.
    proxy.set({ silent: ['up'] })
    const before = capture.archive.commits.length
    const insert = server.query('insert into d.t values (1)')
    await until(() => capture.archive.commits.length > before, 'the commit to come')
    proxy.set({})
    await insert
    assert.equal(capture.failure, undefined)
  })

  test('a source that stops waiting is told of, and so is its return', async () => {
    await using server = await start({ settings: semiSync(word, 300) })
    const said: (string | undefined)[] = []
    const onDegraded = (text: string | undefined) => said.push(text)
    // Never acknowledges: the source runs into its time limit.
    await using capture = await Capture.start(server.url, { durability: 'strict', onDegraded })
    await server.query('create database d')
    await until(() => said.some(Boolean), 'the alarm')
    assert.match(said.find(Boolean) ?? '', /asynchronous/)
    await capture.stop()
    const after = capture.archive.durable()
    assert.ok(after)
    await using second = await Capture.start(server.url, {
      durability: 'strict',
      acks: true,
      onDegraded,
      after,
      archive: capture.archive,
    })
    await server.query('create database e')
    await until(async () => (await status(server, 'status')) === 'ON', 'the return')
    // Another reading than the one that told of it: the alarm ends all the same.
    await until(() => said.at(-1) === undefined, 'the end of the alarm')
    assert.equal(second.failure, undefined)
  })
}
