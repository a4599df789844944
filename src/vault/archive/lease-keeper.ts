import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Time } from '#base/time'
import { type Lease, leaseMs, type LeaseSays, refreshEveryMs, selfFenceMs } from './lease.ts'

export type LeaseKeeperOptions = {
  readonly source: string
  readonly log: Log
  readonly time: Time
  /** What the lease says of an idle source, of how far the log is stored, and of durability. */
  readonly says: () => LeaseSays
  /** Done after each refresh. */
  readonly each: () => Promise<void>
}

const releaseMs = 5000

/** Keeps a lease fresh, and knows when it can no longer be counted on. */
export class LeaseKeeper {
  readonly #lease: Lease
  readonly #options: LeaseKeeperOptions
  #refreshedMs: number
  #news = new AbortController()

  constructor(lease: Lease, options: LeaseKeeperOptions) {
    this.#lease = lease
    this.#options = options
    this.#refreshedMs = options.time.monotonicMs()
  }

  /** Refreshes until the signal aborts; throws when the lease is lost, or was silent for too long. */
  async run(signal: AbortSignal): Promise<void> {
    const { time, log, says, each } = this.#options
    for (;;) {
      await this.#rest(signal)
      try {
        await this.#lease.refresh(says(), signal)
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

  /** What the lease says has changed: it is refreshed now. */
  tellNow(): void {
    this.#news.abort()
  }

  async #rest(signal: AbortSignal): Promise<void> {
    const news = this.#news
    try {
      const both = AbortSignal.any([signal, news.signal])
      await this.#options.time.sleep(refreshEveryMs, both)
    } catch (error) {
      signal.throwIfAborted()
      if (!news.signal.aborted) throw error
      this.#news = new AbortController()
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
      await this.#lease.release(this.#options.says().tail, AbortSignal.timeout(releaseMs))
    } catch (error) {
      // The lease ends by itself: whoever comes next waits a little, and nothing is lost.
      const said = error instanceof Error ? error.message : String(error)
      this.#options.log.warn('could not give the archiver lease back', { error: said })
    }
  }
}
