import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Time } from '#base/time'
import {
  type Lease,
  leaseMs,
  type LeaseNote,
  type LeaseTail,
  refreshEveryMs,
  selfFenceMs,
} from './lease.ts'

export type LeaseKeeperOptions = {
  readonly source: string
  readonly log: Log
  readonly time: Time
  /** What the lease says of an idle source. */
  readonly note: () => LeaseNote | undefined
  /** What the lease says of how far the log is stored. */
  readonly tail: () => LeaseTail | undefined
  /** Done after each refresh. */
  readonly each: () => Promise<void>
}

const releaseMs = 5000

/** Keeps a lease fresh, and knows when it can no longer be counted on. */
export class LeaseKeeper {
  readonly #lease: Lease
  readonly #options: LeaseKeeperOptions
  #refreshedMs: number

  constructor(lease: Lease, options: LeaseKeeperOptions) {
    this.#lease = lease
    this.#options = options
    this.#refreshedMs = options.time.monotonicMs()
  }

  /** Refreshes until the signal aborts; throws when the lease is lost, or was silent for too long. */
  async run(signal: AbortSignal): Promise<void> {
    const { time, log, note, tail, each } = this.#options
    for (;;) {
      await time.sleep(refreshEveryMs, signal)
      try {
        await this.#lease.refresh({ note: note(), tail: tail() }, signal)
        this.#refreshedMs = time.monotonicMs()
        await each()
      } catch (error) {
        signal.throwIfAborted()
        if (!isFault(error) || error.recovery !== 'retry' || error.code === 'locked') throw error
        this.throwIfSilent(error)
        log.warn('could not refresh the archiver lease', { error: error.message })
      }
    }
  }

  /** Throws when the last refresh is so long ago that another archiver may soon take over. */
  throwIfSilent(cause?: unknown): void {
    const silentMs = this.#options.time.monotonicMs() - this.#refreshedMs
    if (silentMs <= selfFenceMs) return
    throw new Fault(
      'locked',
      `archive the log of ${this.#options.source}: the lease could not be refreshed for ${Math.round(silentMs)} ms`,
      {
        hint: `Another archiver may take over after ${leaseMs / 1000} s; this one stops before.`,
        cause,
      },
    )
  }

  /** Gives the lease back, unless it is lost. */
  async end(lost: boolean): Promise<void> {
    this.#lease.end()
    if (lost) return
    try {
      await this.#lease.release(this.#options.tail(), AbortSignal.timeout(releaseMs))
    } catch (error) {
      // The lease ends by itself: whoever comes next waits a little, and nothing is lost.
      const said = error instanceof Error ? error.message : String(error)
      this.#options.log.warn('could not give the archiver lease back', { error: said })
    }
  }
}
