import { assert, Fault, isFault } from '#base/faults'
import { tasks } from '#base/tasks'
import type { LogBeat, Position } from '#change'
import type { Journal } from '#journal'
import type { ArchiveOnly, ArchiveWriter } from '#vault'

const tailMaxMs = 5000

export type ShipperOptions = {
  readonly vault: ArchiveOnly
  readonly source: string
  readonly journal: Journal
  readonly stateDirectory: string
  /** Commits wait for the vault: ship what there is as soon as nothing else is on its way, not by the clock. */
  readonly eager: boolean
  /** Called when more became durable in this vault. */
  readonly onDurable: () => void
}

export type ShipperStatus = {
  readonly url: string
  readonly durable: string | undefined
  readonly said: string
}

/** Carries one source's log from the journal to one vault, and remembers how far it got. */
export class Shipper {
  readonly #options: ShipperOptions
  /** Opened by `connect`, not taken over by `run` yet. */
  #opened: ArchiveWriter | undefined
  #writer: ArchiveWriter | undefined
  #durable: Position | undefined
  #gapSaid: string | undefined
  #said = 'not connected yet'
  #appended = Promise.withResolvers<void>()

  constructor(options: ShipperOptions) {
    this.#options = options
  }

  /** Becomes the vault's archiver of the source, and learns where its archive ends; before anything is captured. */
  async connect(signal: AbortSignal): Promise<void> {
    const { vault, source, stateDirectory } = this.#options
    this.#opened = await vault.archive.openWriter(source, { signal, stateDirectory })
    this.#durable = this.#opened.end
  }

  /** Ships until the signal aborts or the vault fails; run again, it goes on where the vault's archive ends. */
  async run(signal: AbortSignal): Promise<void> {
    if (!this.#opened) await this.connect(signal)
    await using writer = this.#opened
    assert(writer, 'a shipper is connected')
    this.#opened = undefined
    this.#writer = writer
    this.#advance(writer.end)
    writer.onDurable((position) => this.#advance(position))
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

  /** One flush behind the other: commits that come in while one is on its way share the next. */
  async #flushEagerly(writer: ArchiveWriter, signal: AbortSignal): Promise<void> {
    for (;;) {
      await this.#nextAppend(signal)
      this.#appended = Promise.withResolvers<void>()
      await writer.flush({ signal })
    }
  }

  async #nextAppend(signal: AbortSignal): Promise<void> {
    const wake = () => this.#appended.resolve()
    signal.addEventListener('abort', wake, { once: true })
    await this.#appended.promise
    signal.removeEventListener('abort', wake)
    signal.throwIfAborted()
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
          await writer.append(block, { signal })
          this.#appended.resolve()
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

  /** What to say in the catalog when the journal turns out to have been started anew. */
  explainGap(said: string): void {
    this.#gapSaid = said
  }

  status(): ShipperStatus {
    return {
      url: this.#options.vault.url,
      durable: this.#durable?.at,
      said: this.#said,
    }
  }

  #advance(position: Position | undefined): void {
    if (!position) return
    this.#durable = position
    this.#options.onDurable()
  }

  async #recordGap(after: Position, signal: AbortSignal): Promise<void> {
    const { vault, source, journal } = this.#options
    const said = this.#gapSaid ?? 'the local journal no longer held the log that this vault lacked'
    this.#gapSaid = undefined
    await vault.catalog.addGap({ source, after, before: journal.first(), said }, { signal })
  }
}
