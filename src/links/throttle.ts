import { Fault } from '#base/faults'
import { parseSizeBytes } from '#base/bytes'
import { systemTime, type Time } from '#base/time'
import type { RowBlock } from '#change/copy'

/** How much of a source may be read in a second. */
export type Rate = { readonly unit: 'bytes' | 'rows'; readonly perSecond: number }

/** Reads `50MB/s`, `64MiB/s` or `100000rows/s`. */
export function parseRate(text: string): Rate {
  const rows = /^(\d{1,12})rows\/s$/.exec(text)
  const perSecond = rows ? Number(rows[1]) : parseSizeBytes(text.replace(/\/s$/, ''))
  if (perSecond !== undefined && Number.isSafeInteger(perSecond) && perSecond > 0) {
    return { unit: rows ? 'rows' : 'bytes', perSecond }
  }
  throw new Fault('usage', `read --limit: '${text}' is not a rate`, {
    hint: 'Write it as 50MB/s or 100000rows/s.',
  })
}

/** What may come at once after a pause: a bucket of a fifth of a second, so that the rate is true within a second. */
const burstMs = 200

/** One rate for all chunks that are read side by side: a token bucket over row blocks. */
export class Throttle {
  readonly #rate: Rate
  readonly #time: Time
  /** The moment at which all that passed so far has been paid for. */
  #paidMs = Number.NEGATIVE_INFINITY

  constructor(rate: Rate, time: Time = systemTime) {
    this.#rate = rate
    this.#time = time
  }

  /** The same blocks, no faster than the rate allows. A block that is larger than the bucket passes, and is paid for after. */
  async *slow(blocks: AsyncIterable<RowBlock>, signal: AbortSignal): AsyncIterable<RowBlock> {
    for await (const block of blocks) {
      await this.pay(block.rows, block.bytes.length, signal)
      yield block
    }
  }

  /** Waits until so much may pass. */
  async pay(rows: number, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const nowMs = this.#time.monotonicMs()
    const cost = this.#rate.unit === 'rows' ? rows : sizeBytes
    this.#paidMs = Math.max(this.#paidMs, nowMs - burstMs)
    const waitMs = this.#paidMs - nowMs
    this.#paidMs += (cost / this.#rate.perSecond) * 1000
    if (waitMs > 0) await this.#time.sleep(waitMs, signal)
  }
}
