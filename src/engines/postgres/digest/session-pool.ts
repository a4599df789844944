import type { Session } from '../connection.ts'

/** So many sessions alike, each lent to one statement at a time; whoever finds none waits. */
export class SessionPool implements AsyncDisposable {
  readonly #open: (signal: AbortSignal) => Promise<Session>
  readonly #idle: Session[] = []
  readonly #all = new Set<Session>()
  readonly #waiting: (() => void)[] = []
  #free: number

  constructor(size: number, open: (signal: AbortSignal) => Promise<Session>) {
    this.#free = Math.max(1, size)
    this.#open = open
  }

  /** Lends a session for the time of `work`; one that failed is not lent again when it is gone. */
  async with<T>(signal: AbortSignal, work: (session: Session) => Promise<T>): Promise<T> {
    while (this.#free === 0) await this.#turn(signal)
    this.#free -= 1
    let session: Session | undefined
    try {
      session = this.#takeIdle() ?? (await this.#opened(signal))
      return await work(session)
    } finally {
      if (session?.alive) this.#idle.push(session)
      this.#free += 1
      this.#waiting.shift()?.()
    }
  }

  #takeIdle(): Session | undefined {
    let session = this.#idle.pop()
    while (session && !session.alive) session = this.#idle.pop()
    return session
  }

  async #opened(signal: AbortSignal): Promise<Session> {
    const session = await this.#open(signal)
    this.#all.add(session)
    return session
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

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#all].map((session) => session[Symbol.asyncDispose]()))
  }
}
