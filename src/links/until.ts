import { Fault } from '#base/faults'
import { formatTimeUs, parseTimeUs } from '#base/time'

/** When a link that carries changes ends by itself. */
export type Until =
  | { readonly kind: 'caught-up' }
  | { readonly kind: 'never' }
  /** Before the first commit that the source stamped later. */
  | { readonly kind: 'time'; readonly timeUs: bigint }

/** Reads `caught-up`, `never` or a time. */
export function parseUntil(text: string): Until {
  if (text === 'caught-up' || text === 'never') return { kind: text }
  const timeUs = parseTimeUs(text)
  if (timeUs !== undefined) return { kind: 'time', timeUs }
  throw new Fault('usage', `read --until: '${text}' is not caught-up, never or a time`, {
    hint: 'Times are written 2026-11-21T18:00:00Z.',
  })
}

export function formatUntil(until: Until): string {
  return until.kind === 'time' ? formatTimeUs(until.timeUs) : until.kind
}

/**
 * The source is asked once a second where its log ends, and each time only when the last such place has come here: an
 * answer that is on the target sooner than this after the one before came was not older than that.
 */
const caughtUpMs = 2000
/** Commits are stamped before they stand in the log, and by some sources in whole seconds. */
const stampSlackUs = 2_000_000n

type Place = { readonly order: number; readonly sinceMs: number }

/** Judges whether a link has come to its end. */
export class Ending {
  readonly #until: Until
  /** Places where the log ended, that are not on the target yet. */
  #places: Place[] = []
  #heardMs: number

  constructor(until: Until, nowMs: number) {
    this.#until = until
    this.#heardMs = nowMs
  }

  /** Whether a commit of this time is behind the end. */
  isBehind(timeUs: bigint): boolean {
    return this.#until.kind === 'time' && timeUs > this.#until.timeUs
  }

  /** The source said that at `timeUs` its log ended where the entry with this number is; true when that is the end. */
  heard(beat: {
    readonly order: number
    readonly timeUs: bigint
    readonly nowMs: number
  }): boolean {
    const { order, timeUs, nowMs } = beat
    if (this.#until.kind === 'caught-up') this.#places.push({ order, sinceMs: this.#heardMs })
    this.#heardMs = nowMs
    return this.isBehind(timeUs - stampSlackUs)
  }

  /** Entries up to this number are on the target; true when that is the end. */
  reached(order: number, nowMs: number): boolean {
    const there = this.#places.filter((place) => place.order <= order)
    if (there.length === 0) return false
    this.#places = this.#places.filter((place) => place.order > order)
    return there.some(({ sinceMs }) => nowMs - sinceMs < caughtUpMs)
  }
}
