import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Protection } from '../../src/demo/redoubt.ts'
import { Guarded, hear, untilGuarded } from '../support/guarded.ts'
import { logEnd } from '../support/mysql-family-harness.ts'
import { startFakeClock } from '../support/servers/faketime.ts'
import { startMariadb } from '../support/servers/mariadb.ts'
import type { FamilyServer } from '../support/servers/mysql-family.ts'

test('the clock of the archiver steps to and fro: no moment is lost, and none is promised that was not reached', async () => {
  await using server = await startMariadb()
  await server.query('create database shop; create table shop.t (n int primary key)')
  using guarded = await Guarded.begin('archiver-clock')
  using clock = await startFakeClock(guarded.scratch.join('clock'))
  const protection = guarded.protect(server.url, [], clock.env)
  await using _ = protection
  await untilGuarded(protection)
  const moments: string[] = []
  for (const [index, aheadSeconds] of [0, -3600, 3600].entries()) {
    clock.step(aheadSeconds)
    await server.query('insert into shop.t values (?)', [index])
    moments.push(await momentAfterAll(server))
    await untilStored(protection, server)
  }
  await server.query('insert into shop.t values (99)')
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
  await using target = await startMariadb()
  for (const [index, at] of moments.entries()) {
    await guarded.restored('--to', target.url, '--force', '--at', at)
    assert.deepEqual(
      await numbers(target),
      Array.from({ length: index + 1 }, (__, n) => n),
      at,
    )
  }
})

test('the clock of the server steps to and fro: a moment before the step comes back as it was, and the end whole', async () => {
  using guarded = await Guarded.begin('server-clock')
  using clock = await startFakeClock(guarded.scratch.join('clock'))
  await using server = await startMariadb({ env: clock.env })
  await server.query('create database shop; create table shop.t (n int primary key)')
  await using protection = guarded.protect(server.url)
  await untilGuarded(protection)
  await server.query('insert into shop.t values (1)')
  const before = await momentAfterAll(server)
  for (const [n, aheadSeconds] of [
    [2, 3600],
    [3, -3600],
    [4, 0],
  ] as const) {
    clock.step(aheadSeconds)
    await server.query('insert into shop.t values (?)', [n])
    await untilStored(protection, server)
  }
  await protection[Symbol.asyncDispose]()
  const report = await guarded.window()
  assert.deepEqual(report.gaps, [])
  const [window] = report.windows
  assert.ok(window && report.windows.length === 1, JSON.stringify(report))
  assert.ok(BigInt(window.fromUs) < BigInt(window.toUs), JSON.stringify(window))
  await using target = await startMariadb()
  for (const [at, rows] of [
    [before, [1]],
    ['latest', [1, 2, 3, 4]],
  ] as const) {
    await guarded.restored('--to', target.url, '--force', '--at', at)
    assert.deepEqual(await numbers(target), rows, at)
  }
})

async function numbers(server: FamilyServer): Promise<number[]> {
  const rows = await server.query<{ n: number }>('select n from shop.t order by n')
  return rows.map(({ n }) => n)
}

/** Until the vault has the server's log to its present end: by positions, whatever clocks say. */
async function untilStored(protection: Protection, server: FamilyServer): Promise<void> {
  const end = await logEnd(server)
  await hear(protection, ({ vaults }) => (vaults[0]?.durable ?? '').slice(0, 23) >= end)
}

/** A time behind all commits so far, in a second of its own. */
async function momentAfterAll(server: FamilyServer): Promise<string> {
  await nextSecond(server)
  const [row] = await server.query<{ at: string }>(
    `select date_format(utc_timestamp(), '%Y-%m-%dT%H:%i:%sZ') as at`,
  )
  await nextSecond(server)
  return row?.at ?? ''
}

async function nextSecond(server: FamilyServer): Promise<void> {
  await server.query('do sleep(1.1 - mod(unix_timestamp(now(6)), 1))')
}
