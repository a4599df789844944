import type { Progress } from '#base/progress'
import type { Time } from '#base/time'
import type { Position } from '#change'

/** What a link that carries changes tells of itself. */
export type Flow = {
  /** How far the target was behind when it got the last change, by the clocks of source and here. */
  readonly delayMs: number | undefined
  readonly rowsPerSecond: number
  /** Transactions that were read and are not on the target yet. */
  readonly waiting: number
  readonly transactions: number
  readonly rows: number
  /** Changes that did not meet the source's row, and were settled. */
  readonly conflicts: number
  /** All of the source's log up to here is on the target. */
  readonly reached: Position | undefined
  readonly reachedUs: bigint | undefined
}

/** The rate is that of so long. */
const rateMs = 5000

/** Counts what a link carries of changes, for the display and the result. */
export class FlowMeter {
  readonly #progress: Progress
  readonly #time: Time
  #flow: Flow = {
    delayMs: undefined,
    rowsPerSecond: 0,
    waiting: 0,
    transactions: 0,
    rows: 0,
    conflicts: 0,
    reached: undefined,
    reachedUs: undefined,
  }
  #rateFromMs: number
  #rateRows = 0

  constructor(progress: Progress, time: Time) {
    this.#progress = progress
    this.#time = time
    this.#rateFromMs = time.monotonicMs()
    progress.totalBytes = undefined
    progress.totalItems = undefined
    progress.doneBytes = 0
    progress.doneItems = 0
    progress.current = 'waits for the first change'
  }

  get flow(): Flow {
    return this.#flow
  }

  /** Transactions that are on the target. */
  wrote(counts: {
    readonly transactions: number
    readonly rows: number
    readonly conflicts: number
    readonly bytes: number
  }): void {
    const { transactions, rows, conflicts } = this.#flow
    this.#flow = {
      ...this.#flow,
      transactions: transactions + counts.transactions,
      rows: rows + counts.rows,
      conflicts: conflicts + counts.conflicts,
    }
    this.#rateRows += counts.rows
    this.#progress.doneBytes += counts.bytes
    this.#progress.doneItems += counts.transactions
  }

  /** Where the target is now, and how much waits. */
  stands(at: {
    readonly reached: Position
    readonly timeUs: bigint | undefined
    readonly waiting: number
  }): void {
    const { reached, timeUs, waiting } = at
    const moved = reached.at !== this.#flow.reached?.at || waiting > 0
    const delayMs =
      timeUs === undefined || !moved
        ? this.#flow.delayMs
        : Math.max(0, this.#time.now() - Number(timeUs / 1000n))
    const rowsPerSecond = this.#rate()
    const reachedUs = timeUs ?? this.#flow.reachedUs
    this.#flow = { ...this.#flow, delayMs, rowsPerSecond, waiting, reached, reachedUs }
    const delay = delayMs === undefined ? '' : `${(delayMs / 1000).toFixed(1)} s behind, `
    this.#progress.current = `${delay}${rowsPerSecond} rows/s, ${waiting} transactions wait`
  }

  #rate(): number {
    const nowMs = this.#time.monotonicMs()
    const spanMs = Math.max(1, nowMs - this.#rateFromMs)
    const perSecond = Math.round((this.#rateRows / spanMs) * 1000)
    if (spanMs >= rateMs) {
      // The half of what was counted stays: the rate does not jump to nothing.
      this.#rateRows /= 2
      this.#rateFromMs = nowMs - spanMs / 2
    }
    return perSecond
  }
}
