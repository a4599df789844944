import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatTimeUs, parseTimeUs, systemTime } from './time.ts'

const cases: readonly [text: string, us: bigint | undefined][] = [
  ['1970-01-01T00:00:00Z', 0n],
  ['2026-03-01', 1_772_323_200_000_000n],
  ['2026-03-01 12:30', 1_772_368_200_000_000n],
  ['2026-03-01T12:30:05.000001Z', 1_772_368_205_000_001n],
  ['2026-03-01T12:30:05.5+08:00', 1_772_339_405_500_000n],
  ['2026-03-01T12:30:05-0330', 1_772_380_805_000_000n],
  ['2026-02-30T00:00:00Z', undefined],
  ['2026-13-01', undefined],
  ['2026-03-01T25:00:00Z', undefined],
  ['12:00', undefined],
  ['0/3000028', undefined],
  ['', undefined],
]

test('parseTimeUs() reads ISO 8601 with zones and microseconds, and nothing else', () => {
  for (const [text, us] of cases) assert.equal(parseTimeUs(text), us, text)
})

test('formatTimeUs() writes what parseTimeUs() reads, before 1970 too', () => {
  for (const us of [0n, 1n, -1n, 1_772_368_205_000_001n, -62_000_000_000_001n]) {
    assert.equal(parseTimeUs(formatTimeUs(us)), us)
  }
})

test('sleep() throws the reason of its signal', async () => {
  const reason = new Error('enough')
  await assert.rejects(systemTime.sleep(60_000, AbortSignal.abort(reason)), reason)
})
