import { collectSeldom } from '#base/collector'
import { Fault, isAbort, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { createProgress, type Progress } from '#base/progress'
import { type Tasks, tasks } from '#base/tasks'
import { systemTime, type Time } from '#base/time'
import { withoutSecrets } from '#base/urls'
import type { LogSource, Position } from '#change'
import type { Engine, EngineKind, Finding } from '#engines'
import { type Journal, openJournal } from '#journal'
import type { ArchiveOnly, BaseRecord, Vault } from '#vault'
import { takeBase } from './base.ts'
import { BaseRound } from './base-round.ts'
import { copyBase } from './copy.ts'
import { LagMeter } from './lag.ts'
import { Shipper, type ShipperStatus } from './ship.ts'

export type ProtectRequest = {
  readonly kind: EngineKind
  readonly url: string
  readonly source: string
  /**
   * The first is the main one: `strict` waits for it unless `copies` says how many. One that is open for archiving alone
   * gets the log and no bases.
   */
  readonly vaults: readonly [ArchiveOnly, ...ArchiveOnly[]]
  readonly durability: 'async' | 'strict'
  /** How many vaults must have a commit before `strict` acknowledges it; undefined for the first one. */
  readonly copies?: number | undefined
  readonly baseEveryMs: number
  readonly form?: 'physical' | 'logical' | undefined
  readonly parallel: number
  readonly limitBytesPerSecond?: number | undefined
  readonly stateDirectory: string
  readonly journalLimitBytes: number
  /** Run after each base: retention and the like. */
  readonly afterBase?: ((signal: AbortSignal) => Promise<void>) | undefined
  readonly onStatus: (status: ProtectStatus) => void
  readonly time?: Time | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

/** What a protection says of itself, once a second. */
export type ProtectStatus = {
  readonly said: string
  readonly source: string
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
  const { kind, url, log, signal } = request
  {
    await using engine = await kind.open(url, { signal, log })
    await refuseUnfit(engine, request)
  }
  await using journal = await openJournal(request.stateDirectory, {
    limitBytes: request.journalLimitBytes,
    signal,
  })
  await tasks(signal, async (t) => {
    const protection = new Protection(request, journal)
    await protection.start(t)
  })
}

async function refuseUnfit(engine: Engine, request: ProtectRequest): Promise<void> {
  const use = request.durability === 'strict' ? 'protect-strict' : 'protect'
  const findings = await engine.probe(use, { signal: request.signal })
  for (const finding of findings.filter((f) => f.severity === 'warns')) {
    request.log.warn(finding.said, { mend: finding.mend })
  }
  const blocks = findings.filter((finding) => finding.severity === 'blocks')
  if (blocks.length > 0) throw unfit(request.source, blocks)
}

/** The refusal that lists everything in the way, with the statements that mend it. */
export function unfit(source: string, blocks: readonly Finding[]): Fault {
  const mends = blocks.flatMap((finding) => finding.mend ?? [])
  return new Fault('refused', `protect ${source}: ${blocks.map((b) => b.said).join('; ')}`, {
    hint: mends.length > 0 ? `Run on the source: ${mends.join('; ')}` : undefined,
  })
}

class Protection {
  readonly #request: ProtectRequest
  readonly #journal: Journal
  readonly #time: Time
  readonly #lag = new LagMeter()
  readonly #shippers: Shipper[] = []
  readonly #capturing = Promise.withResolvers<void>()
  #log: LogSource | undefined
  #acked: Position | undefined
  #said = 'starting'
  #degraded: string | undefined
  #base: Progress | undefined
  #lastBase: string | undefined
  #baseDue = false
  /** The source no longer has what would follow the vaults' ends: capture begins where the source's log does. */
  #anew = false
  /** A base is due as soon as capture has begun anew. */
  #baseFollows = false
  #wakeBases: (() => void) | undefined
  /** The server's version when it was last connected to. */
  #version: string | undefined

  constructor(request: ProtectRequest, journal: Journal) {
    this.#request = request
    this.#journal = journal
    this.#time = request.time ?? systemTime
  }

  async start(t: Tasks): Promise<void> {
    const { source, vaults, stateDirectory, durability } = this.#request
    const eager = durability === 'strict'
    // First: who waits for a vault, or for the lease of another archiver, says so.
    void t.run((signal) => this.#report(signal))
    for (const vault of vaults) {
      const onDurable = () => this.#settle()
      const journal = this.#journal
      const shipper = new Shipper({ vault, source, journal, stateDirectory, eager, onDurable })
      const connect = `connect to ${vault.url}`
      await this.#keepRunning(connect, t.signal, () => shipper.connect(t.signal))
      this.#shippers.push(shipper)
      const name = `ship to ${vault.url}`
      void t.run((signal) => this.#keepRunning(name, signal, () => shipper.run(signal)))
    }
    void t.run((signal) => this.#keepRunning('capture', signal, () => this.#capture(signal)))
    if (this.#baseVaults().length > 0) void t.run((signal) => this.#bases(signal))
    else this.#sayNoBases()
  }

  /** Reads the source's log into the journal until the connection ends. */
  async #capture(signal: AbortSignal): Promise<void> {
    const { kind, url, log, durability, source } = this.#request
    await using engine = await kind.open(url, { signal, log })
    await this.#rememberSource(engine, signal)
    this.#noteVersion(engine.facts.version)
    await using logSource = await engine.openLog({
      log,
      name: source,
      durability,
      known: this.#known(),
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
        this.#capturing.resolve()
        this.#settle()
      }
    } catch (error) {
      if (isFault(error, 'log-lost', 'source-changed')) await this.#startOver(error, signal)
      throw error
    }
  }

  /** The log up to the journal's end is safe here; without a journal, what every vault has counts. */
  #resumeFrom(): Position | undefined {
    return this.#journal.durable() ?? (this.#anew ? undefined : this.#slowest())
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
    this.#baseDue = true
    this.#wakeBases?.()
    if (this.#baseVaults().length > 0) return
    this.#request.log.warn('a new base is due: what was captured before cannot lead up to now', {
      run: 'redoubt backup',
    })
  }

  /** A base of the version before may be of no use to the new programs: one of their own is due. */
  #noteVersion(version: string): void {
    const before = this.#version
    this.#version = version
    if (before === undefined || before === version) return
    this.#request.log.warn(`the server was ${before} and is ${version} now: a new base is due`)
    this.#baseFollows = true
  }

  /** Where the newest log that is kept anywhere ends. */
  #known(): Position | undefined {
    const durable = this.#shippers.flatMap((shipper) => shipper.durable() ?? [])
    return this.#journal.durable() ?? durable.toSorted(newestFirst)[0]
  }

  async #rememberSource(engine: Engine, signal: AbortSignal): Promise<void> {
    const { source, url, vaults } = this.#request
    const { engine: name, flavor, version } = engine.facts
    const record = { name: source, engine: name, flavor, version, url: withoutSecrets(url) }
    for (const vault of vaults) await vault.catalog.addSource(record, { signal })
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

  /** What every vault has; undefined as long as one has nothing. */
  #slowest(): Position | undefined {
    const durable = this.#shippers.flatMap((shipper) => shipper.durable() ?? [])
    if (durable.length < this.#shippers.length) return undefined
    return durable.toSorted(newestFirst).at(-1)
  }

  async #ack(position: Position | undefined): Promise<void> {
    if (!position || !this.#log) return
    if (position.history === this.#acked?.history && position.at <= this.#acked.at) return
    this.#acked = position
    await this.#log.ack(position)
  }

  /** A base when none opens the present window, then one every `baseEveryMs`. */
  async #bases(signal: AbortSignal): Promise<void> {
    await this.#capturing.promise
    let lastMs = await this.#newestBaseMs(signal)
    for (;;) {
      const dueMs = lastMs === undefined || this.#baseDue ? 0 : lastMs + this.#request.baseEveryMs
      if (dueMs > this.#time.now()) {
        // Between bases bytes only pass through: what a base needs is limited as usual.
        using _seldom = collectSeldom()
        await this.#sleepUntilDue(dueMs - this.#time.now(), signal)
        continue
      }
      this.#baseDue = false
      const round = this.#baseRound(signal)
      await this.#keepRunning('take a base', signal, () => round.run())
      const thinOut = async () => this.#request.afterBase?.(signal)
      await this.#keepRunning('forget old bases', signal, thinOut)
      lastMs = this.#time.now()
    }
  }

  async #sleepUntilDue(ms: number, signal: AbortSignal): Promise<void> {
    const woken = Promise.withResolvers<void>()
    this.#wakeBases = woken.resolve
    const timer = new AbortController()
    const sleep = this.#time.sleep(Math.min(ms, 60_000), AbortSignal.any([signal, timer.signal]))
    await Promise.race([sleep, woken.promise]).finally(() => timer.abort())
    await sleep.catch(() => signal.throwIfAborted())
  }

  #baseVaults(): readonly Vault[] {
    return this.#request.vaults.filter((vault): vault is Vault => 'repository' in vault)
  }

  #sayNoBases(): void {
    this.#request.log.info('archives the log only: bases come from a host with the password', {
      run: 'redoubt backup',
      every: `${Math.round(this.#request.baseEveryMs / 3_600_000)} h`,
    })
  }

  /** When the newest base was recorded that opens a window onto the log that is being captured, in every vault. */
  async #newestBaseMs(signal: AbortSignal): Promise<number | undefined> {
    const newest: (BaseRecord | undefined)[] = []
    for (const vault of this.#baseVaults()) newest.push(await this.#openBase(vault, signal))
    this.#lastBase = newest[0]?.name
    const times = newest.flatMap((base) => base?.recordedMs ?? [])
    return times.length < newest.length ? undefined : Math.min(...times)
  }

  async #openBase(vault: Vault, signal: AbortSignal): Promise<BaseRecord | undefined> {
    const bases = await vault.catalog.bases(this.#request.source, { signal })
    const spans = await vault.archive.spans(this.#request.source, { signal })
    const last = spans.at(-1)
    return bases.findLast(
      (base) => last && base.first.history === last.history && base.first.at >= last.first,
    )
  }

  #baseRound(signal: AbortSignal): BaseRound {
    return new BaseRound({
      vaults: this.#baseVaults(),
      take: (vault) => this.#takeBase(vault, signal),
      copy: (from, to, base) => this.#copyBase(from, to, base, signal),
      log: this.#request.log,
    })
  }

  async #takeBase(vault: Vault, signal: AbortSignal) {
    const { kind, url, log, source } = this.#request
    await using engine = await kind.open(url, { signal, log })
    this.#base = createProgress('base')
    const taken = await takeBase({
      engine,
      vault,
      source,
      form: this.#request.form,
      parallel: this.#request.parallel,
      known: this.#journal.durable(),
      limitBytesPerSecond: this.#request.limitBytesPerSecond,
      progress: this.#base,
      log,
      signal,
    })
    this.#base = undefined
    this.#lastBase = taken.record.name
    this.#say(`base ${taken.record.name} taken in ${Math.round(taken.tookMs / 1000)} s`)
    return taken.record
  }

  async #copyBase(
    from: Vault,
    to: Vault,
    base: Omit<BaseRecord, 'recordedMs'>,
    signal: AbortSignal,
  ): Promise<void> {
    this.#base = createProgress(`copy the base to ${to.url}`)
    await copyBase({ from, to, base, progress: this.#base, signal })
    this.#base = undefined
    this.#say(`base ${base.name} copied to ${to.url}`)
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
      const everywhere = this.#slowest()
      if (everywhere) await this.#journal.trim(everywhere)
      this.#request.onStatus(this.#status())
      await this.#time.sleep(statusEveryMs, signal)
    }
  }

  #status(): ProtectStatus {
    return {
      said: this.#said,
      source: this.#request.source,
      position: this.#journal.durable(),
      lagMs: round(this.#lag.lagMs(this.#time.now())),
      journalBytes: this.#journal.sizeBytes,
      vaults: this.#shippers.map((shipper) => shipper.status()),
      base: this.#base,
      lastBase: this.#lastBase,
      degraded: this.#degraded,
    }
  }

  #say(said: string): void {
    this.#said = said
    this.#request.log.debug(said)
  }

  #degrade(said: string | undefined): void {
    if (said === this.#degraded) return
    this.#degraded = said
    if (said) this.#request.log.error(`durability is degraded: ${said}`)
    else this.#request.log.info('durability is restored')
  }
}

/** Positions of different histories do not compare: the order of their text is then as good as any. */
function newestFirst(a: Position, b: Position): number {
  return a.at < b.at ? 1 : a.at > b.at ? -1 : 0
}

function round(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms)
}
