import { Bell } from '#base/bell'
import { collectSeldom } from '#base/collector'
import { type Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { createProgress, type Progress } from '#base/progress'
import type { Time } from '#base/time'
import type { Position } from '#change'
import type { EngineKind } from '#engines'
import type { BaseRecord, Vault } from '#vault'
import { decodeFacts, takeBase } from './base.ts'
import { runBaseRound, type TakenBase } from './base-round.ts'
import { BaseSchedule, newestOpening, opens } from './base-schedule.ts'
import { copyBase } from './copy.ts'
import type { KnownSource } from './ship.ts'

type Base = Omit<BaseRecord, 'recordedMs'>

/** An idle keeper looks at the clock so often: it may step. */
const restMaxMs = 60_000

export type BaseKeeperParts = {
  readonly kind: EngineKind
  readonly url: string
  readonly source: string
  readonly baseEveryMs: number
  readonly form?: 'physical' | 'logical' | undefined
  readonly parallel: number
  readonly limitBytesPerSecond?: number | undefined
  /** The vaults that take bases and were reached so far; the first is the main one. */
  readonly vaults: () => readonly Vault[]
  /** What is known of the source: a base's record is behind the source's own. */
  readonly describe: () => KnownSource | undefined
  /** Where the log that is kept ends. */
  readonly known: () => Position | undefined
  /** Run after each base in a vault: retention and the like. */
  readonly afterBase?: ((vault: Vault, signal: AbortSignal) => Promise<void>) | undefined
  readonly say: (said: string) => void
  readonly time: Time
  readonly log: Log
}

/** Sees to it that each vault has a base that opens its present window, and a new one every `baseEveryMs`. */
export class BaseKeeper {
  readonly #parts: BaseKeeperParts
  readonly #schedule: BaseSchedule<Vault>
  readonly #bell = new Bell()
  #last: (TakenBase & { readonly takenMs: number }) | undefined
  #progress: Progress | undefined
  #newest: string | undefined

  constructor(parts: BaseKeeperParts) {
    this.#parts = parts
    this.#schedule = new BaseSchedule(parts.baseEveryMs)
  }

  /** Of the base that is being taken. */
  get progress(): Progress | undefined {
    return this.#progress
  }

  /** The newest base that opens the present window. */
  get newest(): string | undefined {
    return this.#newest
  }

  /** No base of before leads up to now, in one vault or in all. */
  dueAtOnce(vault?: Vault): void {
    this.#last = undefined
    const vaults = vault ? [vault] : this.#parts.vaults()
    for (const one of vaults) this.#schedule.dueAtOnce(one)
    this.#bell.ring()
  }

  /** A vault was reached that may lack a base. */
  look(): void {
    this.#bell.ring()
  }

  async run(signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#meetVaults(signal)
      const due = this.#schedule.due(this.#parts.time.now())
      if (due.length > 0) await this.#serve(due, signal)
      else await this.#rest(signal)
    }
  }

  async #rest(signal: AbortSignal): Promise<void> {
    // Between bases bytes only pass through: what a base needs is limited as usual.
    using _seldom = collectSeldom()
    const { time } = this.#parts
    const timer = new AbortController()
    const both = AbortSignal.any([signal, timer.signal])
    const slept = time
      .sleep(Math.min(restMaxMs, Math.max(0, this.#schedule.restMs(time.now()))), both)
      .then(() => this.#bell.ring())
      .catch(() => undefined)
    await this.#bell.heard(signal).finally(() => timer.abort())
    await slept
  }

  /** Finds out when vaults that were not seen before had their last base. */
  async #meetVaults(signal: AbortSignal): Promise<void> {
    for (const vault of this.#parts.vaults()) {
      if (this.#schedule.has(vault)) continue
      try {
        const base = await this.#openBase(vault, signal)
        // A gap may have turned up meanwhile: then one is due whatever was found.
        if (this.#schedule.has(vault)) continue
        this.#newest ??= base?.name
        this.#schedule.begin(vault, base?.recordedMs)
      } catch (error) {
        this.#failed(vault, `look for bases in ${vault.url}`, error)
      }
    }
  }

  /** The newest base that opens a window onto the log that is being captured. */
  async #openBase(vault: Vault, signal: AbortSignal): Promise<BaseRecord | undefined> {
    const { source, describe, log } = this.#parts
    const bases = await vault.catalog.bases(source, { signal })
    const last = (await vault.archive.spans(source, { signal })).at(-1)
    const newest = newestOpening(bases, last)
    const version = newest && decodeFacts(newest.facts).version
    const now = describe()?.version
    if (version === undefined || now === undefined || version === now) return newest
    log.warn(`the last base is of version ${version}, the server is ${now} now: a new one is due`)
    return undefined
  }

  async #serve(vaults: readonly Vault[], signal: AbortSignal): Promise<void> {
    const { time, baseEveryMs, log, afterBase } = this.#parts
    const fresh = this.#last && this.#last.takenMs + baseEveryMs > time.now()
    const { taken, failed } = await runBaseRound({
      vaults,
      last: fresh ? this.#last : undefined,
      opens: (vault, base) => this.#opens(vault, base, signal),
      take: (vault) => this.#take(vault, signal),
      copy: (from, to, base) => this.#copy(from, to, base, signal),
      log,
    }).finally(() => {
      this.#progress = undefined
    })
    if (taken && taken.base !== this.#last?.base) this.#last = { ...taken, takenMs: time.now() }
    for (const vault of vaults) {
      const fault = failed.get(vault)
      if (fault) this.#failed(vault, `take a base into ${vault.url}`, fault)
      else {
        this.#schedule.begin(vault, time.now())
        await afterBase?.(vault, signal).catch((error: unknown) => {
          // The next base tries it again.
          this.#tell(`forget old bases in ${vault.url}`, error)
        })
      }
    }
  }

  async #opens(vault: Vault, base: Base, signal: AbortSignal): Promise<boolean> {
    const last = (await vault.archive.spans(this.#parts.source, { signal })).at(-1)
    return !last || opens(base, last)
  }

  async #take(vault: Vault, signal: AbortSignal): Promise<Base> {
    const { kind, url, source, form, parallel, limitBytesPerSecond, log, known, say } = this.#parts
    await using engine = await kind.open(url, { signal, log })
    await this.#note(vault, signal)
    this.#progress = createProgress('base')
    const taken = await takeBase({
      engine,
      vault,
      source,
      form,
      parallel,
      known: known(),
      limitBytesPerSecond,
      progress: this.#progress,
      log,
      signal,
    })
    this.#newest = taken.record.name
    say(`base ${taken.record.name} taken in ${Math.round(taken.tookMs / 1000)} s`)
    return taken.record
  }

  async #copy(from: Vault, to: Vault, base: Base, signal: AbortSignal): Promise<void> {
    await this.#note(to, signal)
    this.#progress = createProgress(`copy the base to ${to.url}`)
    await copyBase({ from, to, base, progress: this.#progress, signal })
    this.#parts.say(`base ${base.name} copied to ${to.url}`)
  }

  async #note(vault: Vault, signal: AbortSignal): Promise<void> {
    const source = this.#parts.describe()
    if (source) await vault.catalog.addSource(source, { signal })
  }

  #failed(vault: Vault, doing: string, error: unknown): void {
    const fault = this.#tell(doing, error)
    this.#schedule.failed(vault, this.#parts.time.now())
    this.#parts.say(`${doing}: ${fault.message}`)
  }

  /** Says what failed and may pass; throws the rest. */
  #tell(doing: string, error: unknown): Fault {
    if (!isFault(error) || error.recovery === 'stop') throw error
    this.#parts.log.warn(`${doing} failed, trying again later: ${error.message}`, {
      code: error.code,
    })
    return error
  }
}
