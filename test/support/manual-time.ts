import type { Time } from '#base/time'

type Sleeper = { readonly untilMs: number; readonly wake: () => void }

/** A clock that stands still until the test moves it. */
export class ManualTime implements Time {
  #nowMs: number
  readonly #sleepers = new Set<Sleeper>()

  constructor(nowMs = 1_700_000_000_000) {
    this.#nowMs = nowMs
  }

  now(): number {
    return this.#nowMs
  }

  monotonicMs(): number {
    return this.#nowMs
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const sleeper = { untilMs: this.#nowMs + ms, wake: resolve }
    const abort = () => reject(signal?.reason)
    this.#sleepers.add(sleeper)
    signal?.addEventListener('abort', abort, { once: true })
    try {
      await promise
    } finally {
      this.#sleepers.delete(sleeper)
      signal?.removeEventListener('abort', abort)
    }
  }

  /** Moves the clock and wakes whoever is due, in the order of their times; then lets what they started run. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms
    for (;;) {
      const [due] = [...this.#sleepers]
        .filter(({ untilMs }) => untilMs <= endMs)
        .toSorted((a, b) => a.untilMs - b.untilMs)
      if (!due) break
      this.#nowMs = Math.max(this.#nowMs, due.untilMs)
      this.#sleepers.delete(due)
      due.wake()
      await settle()
    }
    this.#nowMs = endMs
    await settle()
  }

  /** Moves the clock by itself, a step whenever nothing else happens, until the work ends. */
  async run<T>(work: Promise<T>, stepMs = 100): Promise<T> {
    let over = false
    const watched = work.finally(() => {
      over = true
    })
    watched.catch(() => undefined)
    while (!over) {
      await settle()
      if (!over) await this.advance(stepMs)
    }
    return watched
  }
}

/** Lets promises, timers that are due and the thread pool have their turns. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
}
