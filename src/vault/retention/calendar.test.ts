import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTimeNs } from '../repository/go-text.ts'
import {
  before,
  formatSpan,
  isEmptySpan,
  type LocalOffset,
  parseSpan,
  parseZoned,
  periodOf,
} from './calendar.ts'

const utc: LocalOffset = () => 0
/** Central European time in 2026: summer time from 29 March 01:00 UTC to 25 October 01:00 UTC. */
const berlin: LocalOffset = (atMs) =>
  (atMs >= Date.UTC(2026, 2, 29, 1) && atMs < Date.UTC(2026, 9, 25, 1) ? 2 : 1) * 3_600_000

test('parseSpan() reads years, months, days, hours and nothing else', () => {
  assert.deepEqual(parseSpan('1y5m7d2h'), { years: 1, months: 5, days: 7, hours: 2 })
  assert.deepEqual(parseSpan(' 2h 1d'), undefined)
  assert.deepEqual(parseSpan('3d4d'), { years: 0, months: 0, days: 4, hours: 0 })
  for (const text of ['1', 'y', '1w', '-1d', '1.5d', '1d,', '9999999d']) {
    assert.equal(parseSpan(text), undefined, text)
  }
  const none = parseSpan('')
  assert.ok(none && isEmptySpan(none))
  assert.equal(formatSpan({ years: 1, months: 0, days: 7, hours: 2 }), '1y7d2h')
})

test('parseZoned() takes an offset for local time only where the local clock had it', () => {
  assert.equal(parseZoned('2026-07-01T12:00:00+02:00', berlin).zone, 'local')
  assert.equal(parseZoned('2026-01-01T12:00:00+02:00', berlin).zone, 'fixed')
  assert.equal(parseZoned('2026-01-01T12:00:00-05:30', berlin).offsetMs, -5.5 * 3_600_000)
  assert.equal(parseZoned('2026-01-01T12:00:00Z', utc).zone, 'fixed')
  assert.throws(() => parseZoned('2026-01-01', utc), /no RFC 3339 time/)
})

const spans: readonly (readonly [string, string, string])[] = [
  ['2026-03-31T10:00:00Z', '1m', '2026-03-03T10:00:00Z'],
  ['2024-03-31T10:00:00.5Z', '1m', '2024-03-02T10:00:00.5Z'],
  ['2024-02-29T10:00:00Z', '1y', '2023-03-01T10:00:00Z'],
  ['2026-01-15T10:00:00Z', '1y2m3d4h', '2024-11-12T06:00:00Z'],
  // A day back over the change to summer time is 23 hours, and 24 hours are 24 hours.
  ['2026-03-29T12:00:00+02:00', '1d', '2026-03-28T12:00:00+01:00'],
  ['2026-03-29T12:00:00+02:00', '24h', '2026-03-28T11:00:00+01:00'],
  // The clocks skip 02:30 on that day: Go answers with the later offset.
  ['2026-03-30T02:30:00+02:00', '1d', '2026-03-29T03:30:00+02:00'],
  // They show 02:30 twice on that one.
  ['2026-10-26T02:30:00+01:00', '1d', '2026-10-25T02:30:00+01:00'],
  // Another zone's offset stays what it is.
  ['2026-03-29T12:00:00-05:00', '1d', '2026-03-28T12:00:00-05:00'],
]

test('before() goes back by the calendar of the zone, as time.AddDate of Go', () => {
  for (const [from, span, to] of spans) {
    const parsed = parseSpan(span)
    assert.ok(parsed)
    assert.equal(
      before(parseZoned(from, berlin), parsed, berlin),
      parseTimeNs(to),
      `${from} ${span}`,
    )
  }
})

test('periodOf() reads the calendar at the written offset, weeks by ISO 8601', () => {
  const at = (text: string) => parseZoned(text, utc)
  assert.equal(periodOf(at('2026-01-01T00:30:00+02:00'), 'year'), 2026)
  assert.equal(periodOf(at('2025-12-31T23:30:00-01:00'), 'hour'), 2025123123)
  assert.equal(periodOf(at('2025-12-31T23:30:00-01:00'), 'day'), 20251231)
  assert.equal(periodOf(at('2025-12-31T23:30:00-01:00'), 'month'), 202512)
  const weeks: readonly (readonly [string, number])[] = [
    ['2021-01-03', 202053],
    ['2021-01-04', 202101],
    ['2024-12-30', 202501],
    ['2026-12-31', 202653],
    ['2027-01-01', 202653],
    ['2027-01-04', 202701],
  ]
  for (const [day, week] of weeks) assert.equal(periodOf(at(`${day}T12:00:00Z`), 'week'), week, day)
})
