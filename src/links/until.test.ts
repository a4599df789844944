import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ending, formatUntil, parseUntil } from './until.ts'

test('an end is caught-up, never or a time', () => {
  assert.deepEqual(parseUntil('caught-up'), { kind: 'caught-up' })
  assert.deepEqual(parseUntil('never'), { kind: 'never' })
  const time = parseUntil('2026-11-21T18:00:00Z')
  assert.equal(formatUntil(time), '2026-11-21T18:00:00.000000Z')
  for (const text of ['', 'soon', 'Never', '2026-13-01']) {
    assert.throws(() => parseUntil(text), { code: 'usage' })
  }
})

test('caught up is who applies the end of the log within two seconds of the answer before', () => {
  const ending = new Ending({ kind: 'caught-up' }, 0)
  // The first answer took three seconds to come: it may be as old.
  assert.equal(ending.heard({ order: 5, timeUs: 0n, nowMs: 3000 }), false)
  assert.equal(ending.reached(5, 3000), false)
  ending.heard({ order: 7, timeUs: 0n, nowMs: 4000 })
  assert.equal(ending.reached(6, 4500), false)
  assert.equal(ending.reached(7, 5000), false)
  ending.heard({ order: 9, timeUs: 0n, nowMs: 5500 })
  assert.equal(ending.reached(9, 5900), true)
})

test('a time is reached by a commit behind it, or by a source that tells so', () => {
  const ending = new Ending({ kind: 'time', timeUs: 10_000_000n }, 0)
  assert.equal(ending.isBehind(10_000_000n), false)
  assert.equal(ending.isBehind(10_000_001n), true)
  assert.equal(ending.heard({ order: 1, timeUs: 11_500_000n, nowMs: 1 }), false)
  assert.equal(ending.heard({ order: 1, timeUs: 12_000_001n, nowMs: 1 }), true)
  const never = new Ending({ kind: 'never' }, 0)
  assert.equal(never.isBehind(2n ** 62n), false)
  assert.equal(never.heard({ order: 1, timeUs: 2n ** 62n, nowMs: 1 }), false)
  assert.equal(never.reached(1, 1), false)
})
