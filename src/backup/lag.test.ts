import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LogBeat } from '#change'
import { LagMeter } from './lag.ts'

const beat = (at: string, history = 'a'): LogBeat => ({ kind: 'beat', history, at, timeUs: 0n })

test('lag grows until what was seen is durable, and counts from when it was seen', () => {
  const meter = new LagMeter(0)
  meter.seen(beat('05'), 1000)
  meter.seen(beat('09'), 2000)
  assert.equal(meter.lagMs(2500), 2500)
  meter.durable({ history: 'a', at: '07' })
  assert.equal(meter.lagMs(2500), 1500)
  meter.durable({ history: 'a', at: '09' })
  assert.equal(meter.lagMs(2500), 500)
})

test('an idle source that is heard of has no lag, a silent one has', () => {
  const meter = new LagMeter(0)
  meter.durable({ history: 'a', at: '05' })
  meter.seen(beat('05'), 9000)
  assert.equal(meter.lagMs(9100), 100)
  assert.equal(meter.lagMs(60_000), 51_000)
})

test('marks of an older history count as covered once a newer history is durable', () => {
  const meter = new LagMeter(0)
  meter.seen(beat('90', 'a'), 1000)
  meter.seen(beat('10', 'b'), 2000)
  meter.durable({ history: 'b', at: '10' })
  assert.equal(meter.lagMs(2000), 0)
})

test('the number of marks stays bounded in a long outage', () => {
  const meter = new LagMeter(0)
  for (let n = 0; n < 100_000; n++) meter.seen(beat(String(n).padStart(9, '0')), n)
  meter.durable({ history: 'a', at: '000099999' })
  assert.equal(meter.lagMs(99_999), 0)
})
