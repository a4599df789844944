import { test } from 'node:test'
import { Guarded, untilGuarded } from '../support/guarded.ts'
import { archiverClockTrial, assertMoments, assertOneWindow } from '../support/moment-trials.ts'
import { makeNumbers, ServerLandings } from '../support/numbers.ts'
import { startFakeClock } from '../support/servers/faketime.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

test('the clock of the archiver steps to and fro: no moment is lost, and none is promised that was not reached', async () => {
  await using server = await startMariadb()
  await archiverClockTrial(await makeNumbers(server), (guarded) => ServerLandings.begin(guarded))
})

test('the clock of the server steps to and fro: a moment before the step comes back as it was, and the end whole', async () => {
  using guarded = await Guarded.begin('server-clock')
  using clock = await startFakeClock(guarded.scratch.join('clock'))
  await using server = await startMariadb({ env: clock.env })
  const numbers = await makeNumbers(server)
  await using protection = guarded.protect(server.url)
  await untilGuarded(protection)
  await numbers.insert(1)
  const before = await numbers.momentAfterAll()
  for (const [n, aheadSeconds] of [
    [2, 3600],
    [3, -3600],
    [4, 0],
  ] as const) {
    clock.step(aheadSeconds)
    await numbers.insert(n)
    await numbers.untilStored(protection)
  }
  await protection[Symbol.asyncDispose]()
  await assertOneWindow(guarded)
  await using landings = await ServerLandings.begin(guarded)
  await assertMoments(landings, [
    [before, [1]],
    ['latest', [1, 2, 3, 4]],
  ])
})
