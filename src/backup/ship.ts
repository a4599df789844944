import { Bell } from '#base/bell'
import { Fault, isFault } from '#base/faults'
import { tasks } from '#base/tasks'
import type { LogBeat, Position } from '#change'
import type { Journal } from '#journal'
import type { ArchiveOnly, ArchiveWriter, Degraded, SourceRecord } from '#vault'

const tailMaxMs = 5000

/** Where a vault is. Protection goes on without one that cannot be reached, and opens it once it can be. */
export type VaultPlace = {
  readonly url: string
  /** False for one that is opened for archiving alone: it gets the log and no bases. */
  readonly takesBases: boolean
  /** Undefined when it could not be reached so far. */
  readonly opened?: ArchiveOnly | undefined
  /** Opens it, or gives out what is open already; whoever calls `protect` closes it. */
  readonly open: () => Promise<ArchiveOnly>
}

/** What the catalog keeps of a source. */
export type KnownSource = Omit<SourceRecord, 'recordedMs'>

export type ShipperOptions = {
  readonly place: VaultPlace
  readonly source: string
  readonly journal: Journal
  readonly stateDirectory: string
  readonly retainMs?: number | undefined
  /** Commits wait for the vault: ship what there is as soon as nothing else is on its way, not by the clock. */
  readonly eager: boolean
  /** What is known of the source by now, to be noted in the vault before its log. */
  readonly known: () => KnownSource | undefined
  /** Called when more became durable in this vault. */
  readonly onDurable: () => void
  /** Called when the vault was reached, or turned out to be away. */
  readonly onReach: () => void
  /** Called when this vault lacks log that is gone: no base of before leads up to now. */
  readonly onGap: () => void
}

export type ShipperStatus = {
  readonly url: string
  readonly durable: string | undefined
  readonly said: string
}

/** Carries one source's log from the journal to one vault, and remembers how far it got. */
export class Shipper {
  readonly #options: ShipperOptions
  #vault: ArchiveOnly | undefined
  #reach: 'trying' | 'away' | 'connected'
  #noted: KnownSource | undefined
  #writer: ArchiveWriter | undefined
  #durable: Position | undefined
  #gapSaid: string | undefined
  #degraded: Degraded | undefined
  #said = 'not connected yet'
  readonly #appended = new Bell()

  constructor(options: ShipperOptions) {
    this.#options = options
    this.#reach = options.place.opened ? 'trying' : 'away'
  }

  /** Undefined until it was reached for the first time. */
  get vault(): ArchiveOnly | undefined {
    return this.#vault
  }

  /** `away` cannot be reached; `trying` may yet turn out to be another archiver's. Once connected, it stays so. */
  get reach(): 'trying' | 'away' | 'connected' {
    return this.#reach
  }

  /** Ships until the signal aborts or the vault fails; run again, it goes on where the vault's archive ends. */
  async run(signal: AbortSignal): Promise<void> {
    await using writer = await this.#connect(signal)
    this.#writer = writer
    this.#advance(writer.end)
    writer.onDurable((position) => this.#advance(position))
    if (this.#degraded) writer.degraded(this.#degraded)
    this.#said = 'shipping'
    try {
      await tasks(signal, async (t) => {
        // A source that is silent has nothing to append: what was on its way must be sent again all the same.
        void t.run((inner) => writer.untilFailed({ signal: inner }))
        if (this.#options.eager) void t.run((inner) => this.#flushEagerly(writer, inner))
        await this.#ship(writer, t.signal)
      })
    } catch (error) {
      this.#said = error instanceof Error ? error.message : String(error)
      // What is captured contradicts what the archive holds: trying again changes nothing.
      if (isFault(error, 'source-changed')) {
        const { message, hint, code } = error
        throw new Fault(code, message, { hint, cause: error, recovery: 'stop' })
      }
      throw error
    } finally {
      this.#writer = undefined
      if (signal.aborted) await this.#shipTail(writer)
    }
  }

  /** Becomes the vault's archiver of the source, and learns where its archive ends; before anything is captured. */
  async #connect(signal: AbortSignal): Promise<ArchiveWriter> {
    const { place, source, stateDirectory, retainMs, onReach } = this.#options
    try {
      this.#vault ??= await place.open()
      const writer = await this.#vault.archive.openWriter(source, {
        signal,
        stateDirectory,
        retainMs,
      })
      this.#durable = writer.end
      this.#reach = 'connected'
      return writer
    } catch (error) {
      this.#said = error instanceof Error ? error.message : String(error)
      const waits = isFault(error) && error.recovery === 'retry'
      // Whoever waits for another archiver to end must not capture beside it.
      if (waits && error.code !== 'locked' && this.#reach === 'trying') this.#reach = 'away'
      throw error
    } finally {
      onReach()
    }
  }

  /** One flush behind the other: commits that come in while one is on its way share the next. */
  async #flushEagerly(writer: ArchiveWriter, signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#appended.heard(signal)
      await writer.flush({ signal })
    }
  }

  /** Stopped in good order: what was taken in goes out, if the vault still answers. */
  async #shipTail(writer: ArchiveWriter): Promise<void> {
    try {
      await writer.flush({ signal: AbortSignal.timeout(tailMaxMs) })
    } catch (error) {
      // Nothing is lost: the journal holds it, and the next start goes on from there.
      this.#said = `the tail stays in the journal: ${error instanceof Error ? error.message : String(error)}`
    }
  }

  async #ship(writer: ArchiveWriter, signal: AbortSignal): Promise<void> {
    const { journal } = this.#options
    let after = writer.end
    for (;;) {
      try {
        for await (const block of journal.read(after, { signal })) {
          await this.#note(signal)
          await writer.append(block, { signal })
          this.#appended.ring()
          after = { history: block.history, at: block.next }
        }
        return
      } catch (error) {
        // The journal was started anew, or is younger than this vault's end: what lies between is gone.
        if (!isFault(error, 'log-lost', 'gap') || !after) throw error
        await this.#recordGap(after, signal)
        writer.allowGap()
        after = undefined
      }
    }
  }

  durable(): Position | undefined {
    return this.#durable
  }

  beat(beat: LogBeat): void {
    this.#writer?.beat(beat)
  }

  /** To be read in the vault too, by whoever looks at its windows. */
  degrade(state: Degraded | undefined): void {
    this.#degraded = state
    this.#writer?.degraded(state)
  }

  /** What to say in the catalog when the journal turns out to have been started anew. */
  explainGap(said: string): void {
    this.#gapSaid = said
  }

  status(): ShipperStatus {
    return {
      url: this.#options.place.url,
      durable: this.#durable?.at,
      said: this.#said,
    }
  }

  #advance(position: Position | undefined): void {
    if (!position) return
    this.#durable = position
    this.#options.onDurable()
  }

  /** A source's record stands in the catalog before its log does. */
  async #note(signal: AbortSignal): Promise<void> {
    const known = this.#options.known()
    if (!known || known === this.#noted) return
    await this.#vault?.catalog.addSource(known, { signal })
    this.#noted = known
  }

  async #recordGap(after: Position, signal: AbortSignal): Promise<void> {
    const { source, journal, onGap } = this.#options
    const said = this.#gapSaid ?? 'the local journal no longer held the log that this vault lacked'
    this.#gapSaid = undefined
    const gap = { source, after, before: journal.first(), said }
    await this.#vault?.catalog.addGap(gap, { signal })
    onGap()
  }
}
