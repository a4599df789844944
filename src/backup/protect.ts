import { Bell } from '#base/bell'
import { type Fault, isAbort, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import { type Tasks, tasks } from '#base/tasks'
import { systemTime, type Time } from '#base/time'
import { withoutSecrets } from '#base/urls'
import type { LogSource, Position } from '#change'
import type { Engine, EngineKind } from '#engines'
import { type Journal, openJournal } from '#journal'
import type { ArchiveOnly, Degraded, Vault } from '#vault'
import { BaseKeeper } from './base-keeper.ts'
import { FirstConnection } from './first-connection.ts'
import { refuseUnfit } from './fitness.ts'
import { LagMeter } from './lag.ts'
import { type KnownSource, Shipper, type ShipperStatus, type VaultPlace } from './ship.ts'

export type ProtectRequest = {
  readonly kind: EngineKind
  readonly url: string
  readonly source: string
  /** The first is the main one: `strict` waits for it unless `copies` says how many. */
  readonly vaults: readonly VaultPlace[]
  readonly durability: 'async' | 'strict'
  /** How many vaults must have a commit before `strict` acknowledges it; undefined for the first one. */
  readonly copies?: number | undefined
  readonly baseEveryMs: number
  readonly form?: 'physical' | 'logical' | undefined
  readonly parallel: number
  readonly limitBytesPerSecond?: number | undefined
  readonly stateDirectory: string
  readonly journalLimitBytes: number
  /** How long folded log objects are under object lock; a store without it is refused. */
  readonly retainMs?: number | undefined
  /** Run after each base in a vault: retention and the like. */
  readonly afterBase?: ((vault: Vault, signal: AbortSignal) => Promise<void>) | undefined
  readonly onStatus: (status: ProtectStatus) => void
  readonly time?: Time | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

/** What a protection says of itself, once a second. */
export type ProtectStatus = {
  readonly said: string
  readonly source: string
  /** When this was said, by the archiver's clock: who reads it may be late. */
  readonly timeMs: number
  readonly position: Position | undefined
  /** Age of the newest moment that the vaults `strict` would wait for can restore, the live RPO; unknown at first. */
  readonly lagMs: number | undefined
  readonly journalBytes: number
  readonly vaults: readonly ShipperStatus[]
  readonly base: Progress | undefined
  /** The newest base that opens the present window. */
  readonly lastBase: string | undefined
  /** Why the durability that was asked for is not had now. */
  readonly degraded: string | undefined
  readonly degradedSinceMs: number | undefined
}

const statusEveryMs = 1000
const beatEveryMs = 1000
const firstPauseMs = 250
const pauseMaxMs = 10_000

/**
 * Protects one source until the signal aborts: captures its log into a local journal, ships it to every vault, takes
 * bases by schedule. What must hold whatever dies is in SPEC.md beside this file.
 */
export async function protect(request: ProtectRequest): Promise<void> {
  const { log, signal } = request
  await using connection = new FirstConnection(request)
  const use = request.durability === 'strict' ? 'protect-strict' : 'protect'
  const doing = `protect ${request.source}`
  await refuseUnfit(await connection.open(), use, { doing, log, signal })
  await using journal = await openJournal(request.stateDirectory, {
    limitBytes: request.journalLimitBytes,
    signal,
  })
  await tasks(signal, async (t) => {
    new Protection(request, journal, connection).start(t)
  })
}

class Protection {
  readonly #request: ProtectRequest
  readonly #journal: Journal
  readonly #connection: FirstConnection
  readonly #time: Time
  readonly #lag = new LagMeter()
  readonly #shippers: readonly Shipper[]
  readonly #bases: BaseKeeper
  readonly #reach = new Bell()
  readonly #captured = new Bell()
  #log: LogSource | undefined
  #acked: Position | undefined
  #said = 'starting'
  #degraded: Degraded | undefined
  #known: KnownSource | undefined
  /** The source no longer has what would follow the vaults' ends: capture begins where the source's log does. */
  #anew = false
  /** A base is due as soon as capture has begun anew. */
  #baseFollows = false

  constructor(request: ProtectRequest, journal: Journal, connection: FirstConnection) {
    this.#request = request
    this.#journal = journal
    this.#connection = connection
    this.#time = request.time ?? systemTime
    this.#shippers = request.vaults.map((place) => this.#shipperTo(place))
    this.#bases = new BaseKeeper({
      ...request,
      vaults: () => this.#baseVaults(),
      describe: () => this.#known,
      known: () => journal.durable(),
      say: (said) => this.#say(said),
      time: this.#time,
    })
  }

  #shipperTo(place: VaultPlace): Shipper {
    const { source, stateDirectory, durability, retainMs } = this.#request
    const shipper: Shipper = new Shipper({
      place,
      source,
      journal: this.#journal,
      stateDirectory,
      retainMs,
      eager: durability === 'strict',
      known: () => this.#known,
      onDurable: () => this.#settle(),
      onReach: () => {
        this.#reach.ring()
        this.#bases.look()
      },
      onGap: () => {
        const { vault } = shipper
        if (vault && isReadable(vault)) this.#bases.dueAtOnce(vault)
      },
    })
    return shipper
  }

  start(t: Tasks): void {
    // First: who waits for a vault, or for the lease of another archiver, says so.
    void t.run((signal) => this.#report(signal))
    for (const [index, shipper] of this.#shippers.entries()) {
      const name = `ship to ${this.#request.vaults[index]?.url}`
      void t.run((signal) => this.#keepRunning(name, signal, () => shipper.run(signal)))
    }
    void t.run(async (signal) => {
      await this.#vaultsReached(signal)
      await this.#keepRunning('capture', signal, () => this.#capture(signal))
    })
    if (this.#takesBases()) void t.run((signal) => this.#keepBases(signal))
    else this.#sayNoBases()
  }

  /**
   * Capture begins where the vaults' archives end, once each vault is ours or known to be away. Nothing is captured
   * beside another archiver, which looks like a vault that keeps us waiting.
   */
  async #vaultsReached(signal: AbortSignal): Promise<void> {
    const reached = () => this.#shippers.map((shipper) => shipper.reach)
    while (reached().includes('trying') || !reached().includes('connected')) {
      await this.#reach.heard(signal)
    }
  }

  async #keepBases(signal: AbortSignal): Promise<void> {
    await this.#captured.heard(signal)
    await this.#bases.run(signal)
  }

  /** Reads the source's log into the journal until the connection ends. */
  async #capture(signal: AbortSignal): Promise<void> {
    const { kind, url, log, durability, source } = this.#request
    await using engine = (await this.#connection.take()) ?? (await kind.open(url, { signal, log }))
    this.#noteSource(engine)
    await using logSource = await engine.openLog({
      log,
      name: source,
      durability,
      known: this.#newestKept(),
      onDegraded: (said) => this.#degrade(said),
    })
    this.#log = logSource
    // A new connection knows nothing of what was acknowledged on the last one, and a commit may wait for just that.
    this.#acked = undefined
    await tasks(signal, async (t) => {
      const done = new AbortController()
      void t.run((inner) => this.#beat(engine, AbortSignal.any([inner, done.signal])))
      try {
        await this.#read(logSource, t.signal)
      } finally {
        done.abort()
      }
    })
  }

  async #read(logSource: LogSource, signal: AbortSignal): Promise<void> {
    const after = this.#resumeFrom()
    this.#say(after ? `capturing from ${after.at}` : 'capturing from now')
    try {
      for await (const item of logSource.read(after, { signal })) {
        if (item.kind === 'block') {
          await this.#journal.append(item, { signal })
          this.#anew = false
          if (this.#request.durability === 'async') await this.#ack(this.#journal.durable())
        } else {
          for (const shipper of this.#shippers) shipper.beat(item)
        }
        if (this.#baseFollows) this.#wakeForBase()
        this.#lag.seen(item, this.#time.now())
        this.#captured.ring()
        this.#settle()
      }
    } catch (error) {
      if (isFault(error, 'log-lost', 'source-changed')) await this.#startOver(error, signal)
      throw error
    }
  }

  /** The log up to the journal's end is safe here; without a journal, what every vault has counts that can be reached. */
  #resumeFrom(): Position | undefined {
    const reached = this.#shippers.filter((shipper) => shipper.reach === 'connected')
    return this.#journal.durable() ?? (this.#anew ? undefined : slowest(reached))
  }

  /** The log between what we have and what the source has now is lost: the vaults will say so, and a base begins anew. */
  async #startOver(error: Fault, signal: AbortSignal): Promise<void> {
    for (const shipper of this.#shippers) shipper.explainGap(error.message)
    await this.#journal.reset({ signal })
    this.#anew = true
    this.#baseFollows = true
  }

  /** The base begins while log is captured again: one that was taken before could lack the log behind it. */
  #wakeForBase(): void {
    this.#baseFollows = false
    this.#bases.dueAtOnce()
    if (this.#takesBases()) return
    this.#request.log.warn('a new base is due: what was captured before cannot lead up to now', {
      run: 'redoubt backup',
    })
  }

  /** A base of the version before may be of no use to the new programs: one of their own is due. */
  #noteSource({ facts }: Engine): void {
    const { source, url } = this.#request
    const { engine, flavor, version } = facts
    const before = this.#known?.version
    this.#known = { name: source, engine, flavor, version, url: withoutSecrets(url) }
    if (before === undefined || before === version) return
    this.#request.log.warn(`the server was ${before} and is ${version} now: a new base is due`)
    this.#baseFollows = true
  }

  /** Where the newest log that is kept anywhere ends. */
  #newestKept(): Position | undefined {
    const durable = this.#shippers.flatMap((shipper) => shipper.durable() ?? [])
    return this.#journal.durable() ?? durable.toSorted(newestFirst)[0]
  }

  async #beat(engine: Engine, signal: AbortSignal): Promise<void> {
    try {
      while (await engine.beat({ signal })) await this.#time.sleep(beatEveryMs, signal)
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  /** What is durable where `durability` asks for it moves on: tell the lag meter, the source, and the journal. */
  #settle(): void {
    const safe = this.#safe()
    if (!safe) return
    this.#lag.durable(safe)
    if (this.#request.durability === 'strict') {
      this.#ack(safe).catch((error: unknown) => this.#say(`cannot acknowledge: ${String(error)}`))
    }
  }

  /** What as many vaults have as `strict` waits for. */
  #safe(): Position | undefined {
    const { copies } = this.#request
    if (copies === undefined) return this.#shippers[0]?.durable()
    const durable = this.#shippers.flatMap((shipper) => shipper.durable() ?? [])
    return durable.toSorted(newestFirst)[copies - 1]
  }

  async #ack(position: Position | undefined): Promise<void> {
    if (!position || !this.#log) return
    if (position.history === this.#acked?.history && position.at <= this.#acked.at) return
    this.#acked = position
    await this.#log.ack(position)
  }

  #takesBases(): boolean {
    return this.#request.vaults.some((place) => place.takesBases)
  }

  #baseVaults(): Vault[] {
    const vaults = this.#shippers.flatMap((shipper) => shipper.vault ?? [])
    return vaults.filter(isReadable)
  }

  #sayNoBases(): void {
    this.#request.log.info('archives the log only: bases come from a host with the password', {
      run: 'redoubt backup',
      every: `${Math.round(this.#request.baseEveryMs / 3_600_000)} h`,
    })
  }

  /** Runs work again after a passing fault, for as long as the signal lets it; every failure is said once. */
  async #keepRunning(name: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    for (let tries = 0; ; tries++) {
      const startedMs = this.#time.monotonicMs()
      try {
        return await work()
      } catch (error) {
        if (signal.aborted || isAbort(error)) throw error
        if (!isFault(error) || error.recovery === 'stop') throw error
        if (this.#time.monotonicMs() - startedMs > pauseMaxMs) tries = 0
        this.#say(`${name}: ${error.message}`)
        this.#request.log.warn(`${name} failed, trying again: ${error.message}`, {
          code: error.code,
        })
        const pauseMs = Math.min(pauseMaxMs, firstPauseMs * 2 ** Math.min(tries, 10))
        await this.#time.sleep(pauseMs * (0.5 + Math.random() / 2), signal)
      }
    }
  }

  async #report(signal: AbortSignal): Promise<void> {
    for (;;) {
      const everywhere = slowest(this.#shippers)
      if (everywhere) await this.#journal.trim(everywhere)
      this.#request.onStatus(this.#status())
      await this.#time.sleep(statusEveryMs, signal)
    }
  }

  #status(): ProtectStatus {
    return {
      said: this.#said,
      source: this.#request.source,
      timeMs: this.#time.now(),
      position: this.#journal.durable(),
      lagMs: round(this.#lag.lagMs(this.#time.now())),
      journalBytes: this.#journal.sizeBytes,
      vaults: this.#shippers.map((shipper) => shipper.status()),
      base: this.#bases.progress,
      lastBase: this.#bases.newest,
      degraded: this.#degraded?.said,
      degradedSinceMs: this.#degraded?.sinceMs,
    }
  }

  #say(said: string): void {
    this.#said = said
    this.#request.log.debug(said)
  }

  #degrade(said: string | undefined): void {
    if (said === this.#degraded?.said) return
    const sinceMs = this.#degraded?.sinceMs ?? this.#time.now()
    this.#degraded = said === undefined ? undefined : { said, sinceMs }
    for (const shipper of this.#shippers) shipper.degrade(this.#degraded)
    if (said) this.#request.log.error(`durability is degraded: ${said}`)
    else this.#request.log.info('durability is restored')
  }
}

/** What all of these vaults have; undefined as long as one has nothing, or was not reached yet. */
function slowest(shippers: readonly Shipper[]): Position | undefined {
  const durable = shippers.flatMap((shipper) => shipper.durable() ?? [])
  return durable.length < shippers.length ? undefined : durable.toSorted(newestFirst).at(-1)
}

function isReadable(vault: ArchiveOnly | Vault): vault is Vault {
  return 'repository' in vault
}

/** Positions of different histories do not compare: the order of their text is then as good as any. */
function newestFirst(a: Position, b: Position): number {
  return a.at < b.at ? 1 : a.at > b.at ? -1 : 0
}

function round(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms)
}
