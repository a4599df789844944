import assert from 'node:assert/strict'
import { Guarded, untilGuarded, untilNewBase, untilShipped } from './guarded.ts'
import { assertMoments } from './moment-trials.ts'
import type { StartServer } from './mysql-family-harness.ts'
import { makeNumbers, ServerLandings } from './numbers.ts'

/**
 * The binary log of a protected source is reset, while the protection runs or while it is stopped: it goes on under
 * the same name, and moments of before and after come back.
 */
export async function resetTrial(start: StartServer, how: 'running' | 'stopped'): Promise<void> {
  using guarded = await Guarded.begin('reset-log')
  await using server = await start()
  const numbers = await makeNumbers(server)
  let protection = guarded.protect(server.url)
  try {
    const { lastBase: firstBase } = await untilGuarded(protection)
    await numbers.insert(1, 2)
    const before = await numbers.momentAfterAll()
    await numbers.insert(3)
    await server.query('flush binary logs')
    await untilShipped(protection)
    if (how === 'stopped') await protection[Symbol.asyncDispose]()
    await numbers.nextTick()
    const old = server.scheme === 'mariadb' || server.version === '5.6'
    await server.query(old ? 'reset master' : 'reset binary logs and gtids')
    await numbers.insert(4)
    if (how === 'stopped') protection = guarded.protect(server.url)
    await untilNewBase(protection, firstBase)
    await numbers.insert(5)
    const after = await numbers.momentAfterAll()
    await server.query('delete from shop.t')
    await untilShipped(protection)
    const report = await guarded.window()
    assert.equal(report.gaps.length, 1, JSON.stringify(report))
    const [first, second] = report.windows
    assert.ok(first?.continuous && second?.continuous, JSON.stringify(report))
    assert.equal(second.from.history.replace(/\.[0-9a-f]{8}$/, ''), first.from.history)
    assert.notEqual(second.from.history, first.from.history)
    // A base by hand finds its place in the new history too.
    await guarded.done('backup', '--source', server.url, '--vault', guarded.vault, '--name', 'shop')
    const later = await guarded.window()
    assert.equal(later.windows.length, 2, JSON.stringify(later))
    await protection[Symbol.asyncDispose]()
    await using landings = await ServerLandings.begin(guarded, start)
    await assertMoments(landings, [
      [before, [1, 2]],
      [after, [1, 2, 3, 4, 5]],
      ['latest', []],
    ])
  } finally {
    await protection[Symbol.asyncDispose]()
  }
}
