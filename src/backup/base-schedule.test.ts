import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BaseSchedule } from './base-schedule.ts'

test('a vault without a base is due at once, another when its base is old enough', () => {
  const schedule = new BaseSchedule<string>(1000)
  schedule.begin('empty', undefined)
  schedule.begin('fresh', 500)
  assert.deepEqual(schedule.due(0), ['empty'])
  schedule.begin('empty', 0)
  assert.deepEqual(schedule.due(999), [])
  assert.equal(schedule.restMs(600), 400)
  assert.deepEqual(schedule.due(1500), ['empty', 'fresh'])
})

test('a vault that fails is tried again later each time, and hinders no other', () => {
  const schedule = new BaseSchedule<string>(1000)
  schedule.begin('away', undefined)
  schedule.begin('here', undefined)
  schedule.failed('away', 0)
  schedule.begin('here', 0)
  assert.deepEqual(schedule.due(499), [])
  assert.deepEqual(schedule.due(500), ['away'])
  schedule.failed('away', 500)
  assert.deepEqual(schedule.due(1499), ['here'])
  assert.deepEqual(schedule.due(1500), ['away', 'here'])
  for (let i = 0; i < 100; i++) schedule.failed('away', 0)
  assert.deepEqual(schedule.due(300_000), ['away', 'here'])
})

test('after a gap a base is due at once, also in a vault that was not looked at yet', () => {
  const schedule = new BaseSchedule<string>(1000)
  for (const key of ['a', 'b']) schedule.begin(key, 0)
  schedule.dueAtOnce('b')
  schedule.dueAtOnce('c')
  assert.deepEqual(schedule.due(1), ['b', 'c'])
  assert.ok(schedule.has('c'))
})

test('a schedule of no vaults rests for ever', () => {
  assert.equal(new BaseSchedule<string>(1000).restMs(5), Infinity)
})
