import { setTimeout as delay } from 'node:timers/promises'

/** The clock and the timers of everything that runs; a simulator passes its own. */
export interface Time {
  /** Milliseconds since 1970, as `Date.now()`. */
  now(): number
  /** Milliseconds of a clock that never steps, for measuring spans. */
  monotonicMs(): number
  /** Ends after `ms`, or throws the signal's reason at once when it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const systemTime: Time = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await delay(ms, undefined, { signal })
    } catch (error) {
      signal?.throwIfAborted()
      throw error
    }
  },
}

const isoPattern =
  /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)? ?(Z|[+-]\d\d(?::?\d\d)?)?$/

/**
 * Reads an ISO 8601 time, with up to microseconds, UTC unless it says otherwise.
 * Returns microseconds since 1970, or undefined when the text is no such time.
 */
export function parseTimeUs(text: string): bigint | undefined {
  const match = isoPattern.exec(text.trim())
  if (!match) return undefined
  const [, year, month, day, hour = '00', minute = '00', second = '00', fraction = '', zone = 'Z'] =
    match
  const ms = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  if (Number.isNaN(ms) || new Date(ms).getUTCDate() !== Number(day)) return undefined
  return (BigInt(ms) - BigInt(zoneMs(zone))) * 1000n + BigInt(fraction.padEnd(6, '0'))
}

function zoneMs(zone: string): number {
  if (zone === 'Z') return 0
  const sign = zone.startsWith('-') ? -1 : 1
  const minutes = zone.length > 3 ? Number(zone.slice(-2)) : 0
  return sign * (Number(zone.slice(1, 3)) * 60 + minutes) * 60_000
}

/** Writes microseconds since 1970 as ISO 8601 in UTC, with six digits. */
export function formatTimeUs(us: bigint): string {
  const fraction = ((us % 1_000_000n) + 1_000_000n) % 1_000_000n
  const seconds = new Date(Number((us - fraction) / 1000n)).toISOString().slice(0, 19)
  return `${seconds}.${String(fraction).padStart(6, '0')}Z`
}
