import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LogBeat, LogBlock } from '#change'
import { LagMeter } from './lag.ts'

const beat = (at: string, timeMs: number, history = 'a'): LogBeat => ({
  kind: 'beat',
  history,
  at,
  timeUs: BigInt(timeMs) * 1000n,
})

function block(at: string, commitMs: number): LogBlock {
  const commit = { at, timeUs: BigInt(commitMs) * 1000n, id: at }
  const bytes = Buffer.alloc(1)
  const place = { history: 'a', segment: 's', offset: 0, first: '00', next: at, closes: false }
  return { kind: 'block', ...place, bytes, commits: [commit] }
}

test('lag is unknown until what the source had is durable, and counts from when it had no more', () => {
  const meter = new LagMeter()
  meter.seen(beat('05', 1000), 1000)
  meter.seen(beat('09', 2000), 2000)
  assert.equal(meter.lagMs(2500), undefined)
  meter.durable({ history: 'a', at: '07' })
  assert.equal(meter.lagMs(2500), 1500)
  meter.durable({ history: 'a', at: '09' })
  assert.equal(meter.lagMs(2500), 500)
})

test('an idle source that is heard of has no lag, a silent one has', () => {
  const meter = new LagMeter()
  meter.durable({ history: 'a', at: '05' })
  meter.seen(beat('05', 9000), 9000)
  assert.equal(meter.lagMs(9100), 100)
  assert.equal(meter.lagMs(60_000), 51_000)
})

test('log that is old when it arrives is as old as its commits, however fast it is shipped', () => {
  const meter = new LagMeter()
  meter.seen(block('05', 100_000), 600_000)
  meter.durable({ history: 'a', at: '05' })
  assert.equal(meter.lagMs(600_100), 500_100)
  meter.seen(block('07', 600_050), 600_200)
  meter.durable({ history: 'a', at: '07' })
  assert.equal(meter.lagMs(600_200), 150)
})

test('a source whose clock is ahead does not make the lag negative for later', () => {
  const meter = new LagMeter()
  meter.seen(beat('05', 90_000), 1000)
  meter.durable({ history: 'a', at: '05' })
  assert.equal(meter.lagMs(3000), 2000)
})

test('marks of an older history count as covered once a newer history is durable', () => {
  const meter = new LagMeter()
  meter.seen(beat('90', 1000, 'a'), 1000)
  meter.seen(beat('10', 2000, 'b'), 2000)
  meter.durable({ history: 'b', at: '10' })
  assert.equal(meter.lagMs(2000), 0)
})

test('the number of marks stays bounded in a long outage', () => {
  const meter = new LagMeter()
  for (let n = 0; n < 100_000; n++) meter.seen(beat(String(n).padStart(9, '0'), n), n)
  meter.durable({ history: 'a', at: '000099999' })
  assert.equal(meter.lagMs(99_999), 0)
})
