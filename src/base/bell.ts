/** Wakes the one who waits for it; rung while nobody waits, it is heard at the next wait. */
export class Bell {
  #rung = Promise.withResolvers<void>()

  ring(): void {
    this.#rung.resolve()
  }

  /** Until the bell rings; throws the signal's reason when it aborts. */
  async heard(signal: AbortSignal): Promise<void> {
    const wake = () => this.ring()
    signal.addEventListener('abort', wake, { once: true })
    if (signal.aborted) wake()
    await this.#rung.promise
    signal.removeEventListener('abort', wake)
    signal.throwIfAborted()
    this.#rung = Promise.withResolvers()
  }
}
