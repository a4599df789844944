import { Fault } from '#base/faults'
import type { Session } from './protocol/session.ts'

/** A number of sessions of which each serves one user at a time; who finds none waits for the next that is free. */
export class SessionPool<Held extends { readonly session: Session }> {
  readonly #free: Held[]
  readonly #again: ((signal: AbortSignal) => Promise<Held>) | undefined
  readonly #waiting: (() => void)[] = []
  #lost = 0
  #count: number

  /** Without `again` a session that is lost cannot be replaced. */
  constructor(held: readonly Held[], again?: (signal: AbortSignal) => Promise<Held>) {
    this.#free = [...held]
    this.#count = held.length
    this.#again = again
  }

  async take(signal: AbortSignal): Promise<Held> {
    for (;;) {
      signal.throwIfAborted()
      const held = this.#free.shift()
      if (held?.session.alive) return held
      if (held) this.#lose()
      else if (this.#lost > 0 && this.#again) return this.#replace(this.#again, signal)
      else if (this.#count === 0) throw new Fault('unreachable', 'use a session: all were lost')
      else await this.#wait(signal)
    }
  }

  give(held: Held): void {
    if (held.session.alive) this.#free.push(held)
    else this.#lose()
    this.#waiting.shift()?.()
  }

  #lose(): void {
    if (this.#again) this.#lost += 1
    else this.#count -= 1
  }

  async #replace(
    again: (signal: AbortSignal) => Promise<Held>,
    signal: AbortSignal,
  ): Promise<Held> {
    this.#lost -= 1
    try {
      return await again(signal)
    } catch (error) {
      this.#lost += 1
      this.#waiting.shift()?.()
      throw error
    }
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.push(resolve)
    signal.addEventListener('abort', () => resolve(), { once: true })
    await promise
    // Who was aborted while it was woken passes the turn on.
    if (signal.aborted) this.#waiting.shift()?.()
  }
}
