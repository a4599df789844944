import { Fault } from './faults.ts'

export type PoolOptions<T> = {
  /** So many at once. */
  readonly size: number
  /** Those that are open already. */
  readonly held?: readonly T[] | undefined
  /** Opens another in the place of one that is not there yet, or was lost. Without it a lost one is not replaced. */
  readonly open?: ((signal: AbortSignal) => Promise<T>) | undefined
  isAlive(one: T): boolean
  /** Ends one, in the middle of something or not. */
  close(one: T): void | Promise<void>
}

/** Sessions alike, each lent to one user at a time; whoever finds none waits for the next that is free, in turn. */
export class Pool<T> implements AsyncDisposable {
  readonly #options: PoolOptions<T>
  readonly #idle: T[]
  readonly #lent = new Set<T>()
  readonly #waiting: (() => void)[] = []
  #opening = 0

  constructor(options: PoolOptions<T>) {
    this.#options = options
    this.#idle = [...(options.held ?? [])]
  }

  /** Waits for one that is free, or opens one. Throws `unreachable` when all were lost and none can be opened. */
  async borrow(signal: AbortSignal): Promise<T> {
    const { open, size } = this.#options
    for (;;) {
      signal.throwIfAborted()
      const idle = this.#takeIdle()
      if (idle !== undefined) return this.#lend(idle)
      const out = this.#lent.size + this.#opening
      if (open && out < Math.max(1, size)) return this.#lend(await this.#opened(open, signal))
      if (!open && out === 0) {
        // Whoever else waits waits for nothing.
        this.#wake()
        throw new Fault('unreachable', 'use a session: all were lost')
      }
      await this.#turn(signal)
    }
  }

  /** Takes one back; one that is not `sound` (in the middle of something) is ended, and another opened in its place. */
  giveBack(one: T, sound = true): void {
    this.#lent.delete(one)
    if (sound && this.#options.isAlive(one)) this.#idle.push(one)
    else void this.#options.close(one)
    this.#wake()
  }

  /** Lends one for the time of `work`, after whose failure it is ended. */
  async with<R>(signal: AbortSignal, work: (one: T) => Promise<R>): Promise<R> {
    const one = await this.borrow(signal)
    let sound = false
    try {
      const result = await work(one)
      sound = true
      return result
    } finally {
      this.giveBack(one, sound)
    }
  }

  /** Ends all of them, lent ones too. */
  async [Symbol.asyncDispose](): Promise<void> {
    const all = [...this.#idle.splice(0), ...this.#lent]
    this.#lent.clear()
    await Promise.all(all.map(async (one) => this.#options.close(one)))
  }

  #lend(one: T): T {
    this.#lent.add(one)
    return one
  }

  #takeIdle(): T | undefined {
    for (;;) {
      const one = this.#idle.shift()
      if (one === undefined || this.#options.isAlive(one)) return one
      void this.#options.close(one)
    }
  }

  async #opened(open: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    this.#opening += 1
    try {
      return await open(signal)
    } catch (error) {
      this.#wake()
      throw error
    } finally {
      this.#opening -= 1
    }
  }

  #wake(): void {
    this.#waiting.shift()?.()
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = () => {
        const index = this.#waiting.indexOf(done)
        if (index >= 0) this.#waiting.splice(index, 1)
        reject(signal.reason)
      }
      const done = () => {
        signal.removeEventListener('abort', stop)
        resolve()
      }
      signal.addEventListener('abort', stop, { once: true })
      this.#waiting.push(done)
    })
  }
}
