import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  areEmptyRules,
  decideKeep,
  hasTags,
  type KeepRules,
  parseCount,
  parseTags,
  parseWithin,
  type Retained,
  unlimited,
} from './keep.ts'

const nowMs = Date.UTC(2026, 10, 21)
const options = { nowMs, local: () => 0 }

function snapshot(time: string, tags?: readonly string[]): Retained {
  return { id: time, time, paths: ['/'], ...(tags ? { tags } : undefined) }
}

/** The kept times and why, newest first. */
function kept(snapshots: readonly Retained[], rules: KeepRules): readonly string[] {
  return decideKeep(snapshots, rules, options).reasons.map(
    (reason) => `${reason.snapshot.time}: ${reason.matches.join(', ')}`,
  )
}

const days = [
  '2026-11-20T20:00:00Z',
  '2026-11-20T10:00:00Z',
  '2026-11-19T10:00:00Z',
  '2026-11-01T10:00:00Z',
  '2026-10-01T10:00:00Z',
  '2025-10-01T10:00:00Z',
].map((time) => snapshot(time))

test('decideKeep() keeps the newest of each period and, with counts left, the oldest', () => {
  assert.deepEqual(kept(days, { daily: 2 }), [
    '2026-11-20T20:00:00Z: daily snapshot',
    '2026-11-19T10:00:00Z: daily snapshot',
  ])
  assert.deepEqual(kept(days.slice(0, 2), { daily: 5 }), [
    '2026-11-20T20:00:00Z: daily snapshot',
    '2026-11-20T10:00:00Z: oldest daily snapshot',
  ])
  assert.deepEqual(kept(days, { last: 1, yearly: unlimited }), [
    '2026-11-20T20:00:00Z: last snapshot, yearly snapshot',
    '2025-10-01T10:00:00Z: yearly snapshot',
  ])
})

test('decideKeep() counts a span back from the newest snapshot that is not ahead of the clock', () => {
  const ahead = snapshot('2027-01-01T00:00:00Z')
  const within = { years: 0, months: 0, days: 1, hours: 0 }
  assert.deepEqual(kept([...days, ahead], { within }), [
    '2027-01-01T00:00:00Z: within 1d',
    '2026-11-20T20:00:00Z: within 1d',
    '2026-11-20T10:00:00Z: within 1d',
  ])
  assert.deepEqual(kept(days, { withinDaily: within }), ['2026-11-20T20:00:00Z: daily within 1d'])
})

test('decideKeep() removes what no rule wants, and keeps by tags beside all counts', () => {
  const list = [snapshot('2026-11-02T00:00:00Z', ['a', 'b']), snapshot('2026-11-01T00:00:00Z')]
  assert.deepEqual(kept(list, { tags: [['b', 'a'], ['c']] }), [
    '2026-11-02T00:00:00Z: has tags [b, a]',
  ])
  assert.deepEqual(kept(list, { tags: [['']] }), ['2026-11-01T00:00:00Z: has tags []'])
  assert.equal(decideKeep(list, { tags: [['c']] }, options).remove.length, 2)
  assert.deepEqual(decideKeep([], { last: 1 }, options), { keep: [], remove: [], reasons: [] })
})

test('decideKeep() puts every snapshot into exactly one list, newest first', () => {
  const { keep, remove } = decideKeep(days.toReversed(), { monthly: 1, last: 2 }, options)
  assert.deepEqual(keep, days.slice(0, 2))
  assert.deepEqual(remove, days.slice(2))
})

test('hasTags() wants all of them; an empty one wants none', () => {
  assert.equal(hasTags({ tags: ['a', 'b'] }, ['a', 'b']), true)
  assert.equal(hasTags({ tags: ['a'] }, ['a', 'b']), false)
  assert.equal(hasTags({}, ['']), true)
  assert.equal(hasTags({ tags: ['a'] }, ['']), false)
})

test('areEmptyRules() holds for rules that would keep nothing at all', () => {
  assert.equal(areEmptyRules({}), true)
  assert.equal(areEmptyRules({ last: 0, within: parseWithin('--keep-within', '') }), true)
  assert.equal(areEmptyRules({ withinYearly: parseWithin('--keep-within-yearly', '1h') }), false)
  assert.equal(areEmptyRules({ tags: [['a']] }), false)
})

test('parseCount(), parseWithin() and parseTags() read options or say what is wrong', () => {
  assert.equal(parseCount('--keep-last', '3'), 3)
  assert.equal(parseCount('--keep-last', 'unlimited'), unlimited)
  for (const text of ['', '-2', '1.5', 'all']) {
    assert.throws(() => parseCount('--keep-last', text), { code: 'usage' }, text)
  }
  assert.throws(() => parseWithin('--keep-within', '1w'), { code: 'usage' })
  assert.deepEqual(parseTags('a, b'), ['a', 'b'])
})
