import type { Time } from '#base/time'

/** How much may come at once after a pause. */
const burstMs = 200

/** Holds back who reads rows, so that on the average of a second no more than so many are read on each side. */
export class Pace {
  readonly #rowsPerSecond: number
  readonly #time: Time
  #paidMs = Number.NEGATIVE_INFINITY

  constructor(rowsPerSecond: number, time: Time) {
    this.#rowsPerSecond = rowsPerSecond
    this.#time = time
  }

  /** Waits until rows that were read before have been paid for; these are paid for by whoever comes next. */
  async pass(rows: bigint, signal: AbortSignal): Promise<void> {
    const nowMs = this.#time.monotonicMs()
    this.#paidMs = Math.max(this.#paidMs, nowMs - burstMs)
    const waitMs = this.#paidMs - nowMs
    this.#paidMs += (Number(rows) / this.#rowsPerSecond) * 1000
    if (waitMs > 0) await this.#time.sleep(waitMs, signal)
  }
}
