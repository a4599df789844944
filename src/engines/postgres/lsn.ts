import { Fault } from '#base/faults'
import type { Position } from '#change'

/** Reads `16/B374D848` as the server writes it. */
export function parseLsn(text: string): bigint {
  const lsn = tryParseLsn(text)
  if (lsn === undefined) throw new Fault('protocol', `read an LSN: ${JSON.stringify(text)}`)
  return lsn
}

/** As `parseLsn`, for what a user wrote: undefined when it is no LSN. */
export function tryParseLsn(text: string): bigint | undefined {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text)
  if (!match) return undefined
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)
}

/** Writes an LSN as the server does. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffffffffn).toString(16)}`.toUpperCase()
}

/** An LSN as the `at` of a Position: sixteen digits, so that text order is log order. */
export function toAt(lsn: bigint): string {
  return lsn.toString(16).toUpperCase().padStart(16, '0')
}

/** The LSN in the `at` of a Position. */
export function fromAt(at: string): bigint {
  if (!/^[0-9A-F]{16}$/.test(at)) {
    throw new Fault('protocol', `read a position: ${JSON.stringify(at)} is not sixteen hex digits`)
  }
  return BigInt(`0x${at}`)
}

/** A cluster's identity and the timeline in it: what one history is. */
export type Timeline = { readonly systemId: string; readonly timeline: number }

/** The history name of a timeline: `7312345678901234567-00000001`. */
export function formatHistory(of: Timeline): string {
  return `${of.systemId}-${hex8(of.timeline)}`
}

export function parseHistory(history: string): Timeline {
  const match = /^(\d{1,20})-([0-9A-F]{8})$/.exec(history)
  if (!match) {
    throw new Fault('source-changed', `read history ${JSON.stringify(history)}: not PostgreSQL's`)
  }
  return { systemId: match[1] ?? '', timeline: Number.parseInt(match[2] ?? '', 16) }
}

export function positionOf(of: Timeline, lsn: bigint): Position {
  return { history: formatHistory(of), at: toAt(lsn) }
}

/** The name of the WAL file that holds `lsn`: timeline, then the segment number in two halves. */
export function segmentName(timeline: number, lsn: bigint, segmentBytes: number): string {
  const number = lsn / BigInt(segmentBytes)
  const perId = 0x100000000n / BigInt(segmentBytes)
  return hex8(timeline) + hex8(Number(number / perId)) + hex8(Number(number % perId))
}

/** What a WAL file's name says: its timeline and where it begins. */
export function parseSegmentName(
  name: string,
  segmentBytes: number,
): { readonly timeline: number; readonly first: bigint } | undefined {
  const match = /^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})$/.exec(name)
  if (!match) return undefined
  const perId = 0x100000000n / BigInt(segmentBytes)
  const number = BigInt(`0x${match[2]}`) * perId + BigInt(`0x${match[3]}`)
  return { timeline: Number.parseInt(match[1] ?? '', 16), first: number * BigInt(segmentBytes) }
}

export function historyFileName(timeline: number): string {
  return `${hex8(timeline)}.history`
}

/** The first LSN of the segment that holds `lsn`. */
export function segmentStart(lsn: bigint, segmentBytes: number): bigint {
  return lsn - (lsn % BigInt(segmentBytes))
}

/** Where one timeline ended and its successor began. */
export type TimelineSwitch = { readonly timeline: number; readonly switchedAt: bigint }

/**
 * Reads a timeline history file: the ancestors, oldest first, each with where it was left.
 * https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES
 */
export function parseTimelineHistory(text: string): TimelineSwitch[] {
  const switches: TimelineSwitch[] = []
  for (const line of text.split('\n')) {
    if (line.trim() === '' || line.trimStart().startsWith('#')) continue
    const [timeline = '', lsn = ''] = line.trim().split(/\s+/)
    switches.push({ timeline: Number(timeline), switchedAt: parseLsn(lsn) })
  }
  return switches
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, '0')
}
