import { silentLog } from '#base/log'
import { createProgress, type Progress } from '#base/progress'
import type { Time } from '#base/time'
import { migrate, type Migrated } from '#links/migrate'
import { hasState } from '#links/state'
import { Lifetime, MemoryServer } from './memory-server.ts'
import { Scratch } from './scratch.ts'

/** Sleeps are over at once, and counted. */
export class Sleepless implements Time {
  sleptMs = 0
  now = () => 0
  monotonicMs = () => this.sleptMs
  sleep = async (ms: number) => {
    this.sleptMs += ms
  }
}

/** A small shop in memory and where it is to go; what each side is asked is counted. */
export class LinkWorld implements Disposable {
  readonly #scratch = new Scratch('copy')
  readonly source = new MemoryServer()
  readonly target = new MemoryServer()
  readonly sourceLife = new Lifetime()
  readonly targetLife = new Lifetime()
  readonly time = new Sleepless()
  readonly progress: Progress = createProgress('test')

  constructor() {
    this.source.addTable(['shop', 'orders'], { byKey: true, identified: true })
    for (let key = 0; key < 20; key++) this.source.put('shop.orders', key, `order ${key}`)
  }

  /** A plan was recorded. */
  get begun(): boolean {
    return hasState(this.#scratch.path)
  }

  migrate(resume = false): Promise<Migrated> {
    return migrate({
      source: this.source.connect(this.sourceLife),
      target: this.target.connect(this.targetLife),
      from: 'memory://a',
      to: 'memory://b',
      asked: {},
      stateDirectory: this.#scratch.path,
      resume,
      dryRun: false,
      parallel: 2,
      onPreview: () => undefined,
      onSaid: () => undefined,
      progress: this.progress,
      chunkBytes: 30,
      time: this.time,
      log: silentLog,
      signal: new AbortController().signal,
    })
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]()
  }
}
