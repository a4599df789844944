import { Fault } from '#base/faults'
import { parseTimeNs } from '../repository/go-text.ts'

/** A span of calendar time: how long a year or a month is depends on where it is laid. */
export type Span = {
  readonly years: number
  readonly months: number
  readonly days: number
  readonly hours: number
}

/**
 * The offset from UTC of the local time zone at an instant (milliseconds since 1970), in milliseconds.
 * A parameter, so that decisions can be tested in any zone.
 */
export type LocalOffset = (atMs: number) => number

/** The zone of this process. */
export const systemOffset: LocalOffset = (atMs) => -60_000 * new Date(atMs).getTimezoneOffset()

/** An instant, and the zone in which its calendar is read: `local`, or a fixed offset from UTC. */
export type ZonedTime = {
  readonly ns: bigint
  readonly offsetMs: number
  readonly zone: 'local' | 'fixed'
}

const nsPerMs = 1_000_000n
const hourMs = 3_600_000

/**
 * Reads a time as a snapshot bears it. The calendar follows the offset written there; one that is the local
 * zone's offset of that instant counts as local time, as Go's `time.Parse` has it.
 */
export function parseZoned(text: string, local: LocalOffset): ZonedTime {
  const ns = parseTimeNs(text)
  if (ns === undefined) throw new Fault('corrupt', `read time '${text}': it is no RFC 3339 time`)
  if (text.endsWith('Z')) return { ns, offsetMs: 0, zone: 'fixed' }
  const sign = text.at(-6) === '-' ? -1 : 1
  const offsetMs = sign * (Number(text.slice(-5, -3)) * hourMs + Number(text.slice(-2)) * 60_000)
  return { ns, offsetMs, zone: local(instantMs(ns)) === offsetMs ? 'local' : 'fixed' }
}

/** Milliseconds since 1970, rounded down. */
function instantMs(ns: bigint): number {
  const rest = ((ns % nsPerMs) + nsPerMs) % nsPerMs
  return Number((ns - rest) / nsPerMs)
}

/** The instant that lies a span before another, by the calendar: months first, then days, then hours. */
export function before(time: ZonedTime, span: Span, local: LocalOffset): bigint {
  const wall = new Date(instantMs(time.ns) + time.offsetMs)
  wall.setUTCFullYear(
    wall.getUTCFullYear() - span.years,
    wall.getUTCMonth() - span.months,
    wall.getUTCDate() - span.days,
  )
  const ms =
    time.zone === 'fixed' ? wall.getTime() - time.offsetMs : fromWall(wall.getTime(), local)
  const belowMs = ((time.ns % nsPerMs) + nsPerMs) % nsPerMs
  return BigInt(ms - span.hours * hourMs) * nsPerMs + belowMs
}

/**
 * The instant at which local clocks show a wall time. Where they show it twice or never, the answer is the one of
 * Go's `time.Date`: the offset is looked up as though the wall time were UTC, then once more where that led.
 */
function fromWall(wallMs: number, local: LocalOffset): number {
  const guess = local(wallMs)
  return guess === 0 ? wallMs : wallMs - local(wallMs - guess)
}

export type Unit = 'hour' | 'day' | 'week' | 'month' | 'year'

/** The number of the hour, day, ISO week, month or year that a time falls into: equal for two times of the same one. */
export function periodOf(time: ZonedTime, unit: Unit): number {
  const wall = new Date(instantMs(time.ns) + time.offsetMs)
  const year = wall.getUTCFullYear()
  const month = year * 100 + wall.getUTCMonth() + 1
  switch (unit) {
    case 'hour':
      return (month * 100 + wall.getUTCDate()) * 100 + wall.getUTCHours()
    case 'day':
      return month * 100 + wall.getUTCDate()
    case 'week':
      return isoWeek(wall)
    case 'month':
      return month
    case 'year':
      return year
  }
}

const dayMs = 24 * hourMs

/** ISO 8601: the week belongs to the year that its Thursday falls into. */
function isoWeek(wall: Date): number {
  const weekday = (wall.getUTCDay() + 6) % 7
  const thursday = new Date(wall.getTime() + (3 - weekday) * dayMs)
  const first = new Date(0)
  first.setUTCFullYear(thursday.getUTCFullYear(), 0, 1)
  return (
    thursday.getUTCFullYear() * 100 +
    1 +
    Math.floor((thursday.getTime() - first.getTime()) / (7 * dayMs))
  )
}

const units: Readonly<Record<string, keyof Span>> = {
  y: 'years',
  m: 'months',
  d: 'days',
  h: 'hours',
}

/** Reads a span such as `1y5m7d2h`; undefined when the text is none. A unit given twice counts once, the last time. */
export function parseSpan(text: string): Span | undefined {
  const trimmed = text.trim()
  if (!/^(?:\d{1,6}[ymdh])*$/.test(trimmed)) return undefined
  const span = { years: 0, months: 0, days: 0, hours: 0 }
  for (const [, number, unit = ''] of trimmed.matchAll(/(\d+)([ymdh])/g)) {
    const field = units[unit]
    if (field) span[field] = Number(number)
  }
  return span
}

/** Writes a span as `parseSpan` reads it. */
export function formatSpan({ years, months, days, hours }: Span): string {
  const parts: readonly (readonly [number, string])[] = [
    [years, 'y'],
    [months, 'm'],
    [days, 'd'],
    [hours, 'h'],
  ]
  return parts.map(([count, unit]) => (count === 0 ? '' : `${count}${unit}`)).join('')
}

export function isEmptySpan({ years, months, days, hours }: Span): boolean {
  return years === 0 && months === 0 && days === 0 && hours === 0
}
