import assert from 'node:assert/strict'
import { formatTimeUs } from '#base/time'
import { done, refused } from './command.ts'
import { Guarded, untilGuarded, untilNewBase, untilShipped } from './guarded.ts'
import type { Landings, Numbers } from './numbers.ts'
import { startFakeClock } from './servers/faketime.ts'

export type OpenLandings = (guarded: Guarded) => Promise<Landings>

/** Restores to one moment after the other, and compares the numbers. */
export async function assertMoments(
  landings: Landings,
  moments: readonly (readonly [at: string, numbers: readonly number[]])[],
): Promise<void> {
  for (const [at, numbers] of moments) {
    done(await landings.restore(at))
    assert.deepEqual(await landings.numbers(), numbers, `restored to ${at}`)
  }
}

/** The one window of a source: no gap, and its times in order. */
export async function assertOneWindow(guarded: Guarded): Promise<{ readonly toUs: string }> {
  const report = await guarded.window()
  assert.deepEqual(report.gaps, [])
  const [window] = report.windows
  assert.ok(window && report.windows.length === 1, JSON.stringify(report))
  assert.ok(BigInt(window.fromUs) < BigInt(window.toUs), JSON.stringify(window))
  return window
}

/** The clock of the archiver steps back and forth by an hour while it works. */
export async function archiverClockTrial(numbers: Numbers, open: OpenLandings): Promise<void> {
  using guarded = await Guarded.begin('archiver-clock')
  using clock = await startFakeClock(guarded.scratch.join('clock'))
  await using protection = guarded.protect(numbers.url, [], clock.env)
  await untilGuarded(protection)
  const moments: string[] = []
  for (const [index, aheadSeconds] of [0, -3600, 3600].entries()) {
    clock.step(aheadSeconds)
    await numbers.insert(index)
    moments.push(await numbers.momentAfterAll())
    await numbers.untilStored(protection)
  }
  await numbers.insert(99)
  await numbers.untilStored(protection)
  assert.doesNotMatch(String(protection.news?.said), /another archiver|lease/)
  await protection[Symbol.asyncDispose]()
  const { toUs } = await assertOneWindow(guarded)
  const nowUs = BigInt(Date.now()) * 1000n
  assert.ok(BigInt(toUs) <= nowUs, `${toUs} is promised at ${nowUs}`)
  await using landings = await open(guarded)
  const upTo = (index: number) => Array.from({ length: index + 1 }, (_, n) => n)
  await assertMoments(
    landings,
    moments.map((at, index) => [at, upTo(index)] as const),
  )
}

/**
 * Log is lost that nobody has read: moments in the gap are refused, as are those outside of the window, and leave
 * nothing behind; both ends of the gap come back.
 */
export async function gapTrial(
  numbers: Numbers,
  lose: { readonly log: () => Promise<void>; readonly said: RegExp },
  open: OpenLandings,
): Promise<void> {
  using guarded = await Guarded.begin('moments')
  let firstBase: string | undefined
  {
    await using protection = guarded.protect(numbers.url)
    firstBase = (await untilGuarded(protection)).lastBase
    await numbers.insert(1)
    await untilShipped(protection)
  }
  await numbers.nextTick()
  await numbers.insert(2)
  const inside = await numbers.momentAfterAll()
  await lose.log()
  await numbers.insert(3)
  {
    await using protection = guarded.protect(numbers.url)
    await untilNewBase(protection, firstBase)
    // A commit in the second of the base would come back with its earliest moment.
    await numbers.nextTick()
    await numbers.insert(4)
    await untilShipped(protection)
  }
  const report = await guarded.window()
  assert.equal(report.gaps.length, 1, JSON.stringify(report))
  assert.match(String(report.gaps[0]?.said), lose.said)
  const [before, after] = report.windows
  assert.ok(before?.continuous && after?.continuous, JSON.stringify(report))
  const end = (us: string) => formatTimeUs(BigInt(us))
  const ends = [end(before.toUs), end(after.fromUs)] as const
  await using landings = await open(guarded)
  const error = refused(await landings.restore(inside), inside, 1, /lies in a gap of the log/)
  assert.equal(error.code, 'gap')
  for (const at of ends) assert.ok(error.hint?.includes(at), `${at}: ${error.hint}`)
  const [past, future] = [
    await landings.restore('2001-01-01'),
    await landings.restore('2999-01-01'),
  ]
  refused(past, 'before all', 5, /the oldest moment .* is 20/)
  refused(future, 'in the future', 5, /the newest moment .* is 20/)
  assert.ok(await landings.untouched(), 'a refused restore leaves nothing')
  await assertMoments(landings, [
    [ends[0], [1]],
    [ends[1], [1, 2, 3]],
    ['latest', [1, 2, 3, 4]],
  ])
}
