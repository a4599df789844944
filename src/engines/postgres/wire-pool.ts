import type { Wire } from './protocol/wire.ts'

/** So many sessions alike, each lent to one at a time; whoever finds none waits. */
export class WirePool {
  readonly #open: (signal: AbortSignal) => Promise<Wire>
  readonly #idle: Wire[] = []
  readonly #lent = new Set<Wire>()
  readonly #waiting: (() => void)[] = []
  #free: number

  constructor(size: number, open: (signal: AbortSignal) => Promise<Wire>) {
    this.#free = Math.max(1, size)
    this.#open = open
  }

  /** Waits for a session that is free, or opens one. */
  async borrow(signal: AbortSignal): Promise<Wire> {
    while (this.#free === 0) await this.#turn(signal)
    this.#free -= 1
    try {
      const wire = this.#takeIdle() ?? (await this.#open(signal))
      this.#lent.add(wire)
      return wire
    } catch (error) {
      this.#release()
      throw error
    }
  }

  /** Gives a session back; one that is not `sound` (in the middle of something) is ended, and another opened in its place. */
  giveBack(wire: Wire, sound: boolean): void {
    this.#lent.delete(wire)
    if (sound && wire.alive) this.#idle.push(wire)
    else wire.close()
    this.#release()
  }

  /** Lends a session for the time of `work`. */
  async with<T>(signal: AbortSignal, work: (wire: Wire) => Promise<T>): Promise<T> {
    const wire = await this.borrow(signal)
    let sound = false
    try {
      const result = await work(wire)
      sound = true
      return result
    } finally {
      this.giveBack(wire, sound)
    }
  }

  close(): void {
    for (const wire of [...this.#idle.splice(0), ...this.#lent]) wire.close()
    this.#lent.clear()
  }

  #takeIdle(): Wire | undefined {
    for (;;) {
      const wire = this.#idle.pop()
      if (!wire || wire.alive) return wire
      wire.close()
    }
  }

  #release(): void {
    this.#free += 1
    this.#waiting.shift()?.()
  }

  #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
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
