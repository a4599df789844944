import { systemTime, type Time } from '#base/time'
import type { Log } from '#base/log'
import type { Engine, EngineKind } from '#engines'

/** So long capture may begin over the connection that the source was probed over. */
const firstConnectionMs = 10_000

export type ConnectionRequest = {
  readonly kind: Pick<EngineKind, 'open'>
  readonly url: string
  readonly time?: Time | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

/** The connection that the probe was made over, for the capture that follows at once. */
export class FirstConnection implements AsyncDisposable {
  readonly #request: ConnectionRequest
  readonly #time: Time
  #opened: { readonly engine: Engine; readonly sinceMs: number } | undefined

  constructor(request: ConnectionRequest) {
    this.#request = request
    this.#time = request.time ?? systemTime
  }

  async open(): Promise<Engine> {
    const { kind, url, log, signal } = this.#request
    const engine = await kind.open(url, { signal, log })
    this.#opened = { engine, sinceMs: this.#time.monotonicMs() }
    return engine
  }

  /** Gives it away once, and only as long as it is fresh: what lay idle may be dead, or of a server that was changed since. */
  async take(): Promise<Engine | undefined> {
    const opened = this.#opened
    this.#opened = undefined
    if (!opened) return undefined
    if (this.#time.monotonicMs() - opened.sinceMs <= firstConnectionMs) return opened.engine
    await opened.engine[Symbol.asyncDispose]()
    return undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.engine[Symbol.asyncDispose]()
  }
}
