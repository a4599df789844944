import { cpSync, existsSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { isFault } from '#base/faults'
import { Protection } from '../../../src/demo/redoubt.ts'
import { type CrashAt, ending } from './command.ts'
import type { Place } from './places.ts'
import { countMoments, type KilledRow, type KilledTrials, type TrialNews } from './trials.ts'
import type { VaultWorld } from './vault-world.ts'
import { verifyVault } from './verify.ts'

const signal = new AbortController().signal
/** How long an undisturbed session is counted for, once its base is taken: parts, folds and the lease come again and again. */
const countedMs = 3000
const failuresMax = 5

export type ProtectOptions = {
  /** Every so many trials all of the vault is looked at; what a trial loses, no later one brings back. */
  readonly verifyEvery: number
  /** Of those, every so many all stored bytes are read. */
  readonly readDataEvery: number
  readonly onTrial?: ((trial: TrialNews) => void) | undefined
}

/**
 * Kills `protect` under load at operations of its store: while it takes over the archive, ships parts, folds segments,
 * takes a base, forgets old ones and trims the log. What a trial proves: the process died there by a kill; the next one
 * went on by itself until all was stored that the server had committed by then. Every `verifyEvery` trials, and at the
 * end: the check finds nothing, there is one window without a gap, and its log is byte for byte the server's.
 */
export class ProtectRow implements KilledRow {
  readonly operations: readonly string[]
  readonly #place: Place
  readonly #options: ProtectOptions
  readonly #session: Session
  #verified = 0

  private constructor(
    place: Place,
    options: ProtectOptions,
    parts: { readonly session: Session; readonly operations: readonly string[] },
  ) {
    this.#place = place
    this.#options = options
    this.#session = parts.session
    this.operations = parts.operations
  }

  static async begin(place: Place, options: ProtectOptions): Promise<ProtectRow> {
    const { world } = place
    const state = world.scratch.join(`${place.name}-journal`)
    cpSync(world.scratch.join('journal'), state, { recursive: true })
    const session = new Session(place, state)
    await using _load = startLoad(world)
    return new ProtectRow(place, options, { session, operations: await session.count() })
  }

  async run(crashes: Iterable<CrashAt>): Promise<KilledTrials> {
    const startedMs = performance.now()
    const verifiedBefore = this.#verified
    const failures: string[] = []
    let [tried, logUntil] = [0, '']
    await using _load = startLoad(this.#place.world)
    for (const crash of crashes) {
      tried += 1
      this.#place.trials += 1
      const failure = await this.#try(`killed ${crash.moment} ${crash.at}`, async () => {
        await this.#session.killed(crash)
        logUntil = await this.#session.catchUp()
        if (tried % this.#options.verifyEvery === 0) await this.#verify(logUntil)
      })
      this.#options.onTrial?.({ verb: 'protect', ...crash, killed: failure === undefined, failure })
      if (failure !== undefined) failures.push(failure)
      if (failures.length >= failuresMax) break
    }
    if (tried % this.#options.verifyEvery !== 0 && logUntil !== '') {
      const failure = await this.#try('the last look', () => this.#verify(logUntil))
      if (failure !== undefined) failures.push(failure)
    }
    const tookMs = Math.round(performance.now() - startedMs)
    const followed = this.#verified - verifiedBefore
    const counts = { counted: this.operations.length, moments: countMoments(this.operations) }
    return { verb: 'protect', ...counts, tried, ended: 0, followed, failures, tookMs }
  }

  async #try(what: string, work: () => Promise<void>): Promise<string | undefined> {
    try {
      await work()
      return undefined
    } catch (error) {
      return `protect, ${what}: ${error instanceof Error ? error.message : String(error)}`
    }
  }

  async #verify(logUntil: string): Promise<void> {
    this.#verified += 1
    const { url, snapshots, world, trials: sample } = this.#place
    const readData = this.#verified % this.#options.readDataEvery === 0
    await verifyVault(world, { url, snapshots, logUntil, sample, readData })
  }
}

/** One protection after the other, of the same source into the same vault. */
class Session {
  readonly #place: Place
  readonly #args: string[]

  constructor(place: Place, state: string) {
    this.#place = place
    const often = ['--base-every', '15s', '--keep-last', '3']
    this.#args = [...place.world.protectArgs(place.url, state), ...often]
  }

  count(): Promise<readonly string[]> {
    return this.#place.count(this.#args, async (child) => {
      await using protection = new Protection(child as never)
      await protection.until(({ said }) => /^base .* taken/.test(said), { signal })
      await delay(countedMs)
    })
  }

  /** Runs until it dies; throws when it ends in another way. */
  async killed(crash: CrashAt): Promise<void> {
    const { killed, code, said } = await ending(this.#place.start(this.#args, crash))
    if (!killed) throw new Error(`it ended with ${code} before it was killed: ${said}`)
  }

  /** Runs until all that the server has committed by now is in the vault; returns where that ends. */
  async catchUp(): Promise<string> {
    await using protection = new Protection(this.#place.start(this.#args) as never)
    const end = await this.#place.world.logEnd()
    for (let before: string | undefined; ; ) {
      try {
        await protection.until(
          ({ vaults, lastBase }) => lastBase !== undefined && (vaults[0]?.durable ?? '') >= end,
          { signal },
        )
        break
      } catch (error) {
        // On a busy machine it may take longer than anybody waits for; then it goes on, though, as long as log arrives.
        const { vaults, said } = protection.news ?? {}
        const now = `${vaults?.[0]?.durable} ${said}`
        if (!isFault(error, 'timeout') || now === before) {
          const reached = `${now}, of ${end}`
          throw new Error(`it does not catch up: ${reached}`, { cause: error })
        }
        before = now
      }
    }
    return end
  }
}

/** Commits and ended segments, one behind the other, until the scope ends. */
function startLoad(world: VaultWorld): AsyncDisposable {
  const stop = new AbortController()
  const run = async () => {
    while (!stop.signal.aborted) {
      await world.load(3)
      await delay(300, undefined, { signal: stop.signal }).catch(() => undefined)
    }
  }
  const running = run()
  running.catch(() => undefined)
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      if (existsSync(world.server.dataDir)) await running
    },
  }
}
