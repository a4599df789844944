import { Fault, isFault } from '#base/faults'
import { systemTime } from '#base/time'
import type { Flavor } from './flavor.ts'
import { comparePlaces, fileNumber, type Place } from './position.ts'
import type { Session } from './protocol/session.ts'
import { readLogEnd } from './server.ts'

const askEveryMs = 1000
/** A question that is not answered for so long means a connection that is half-open: so may be that of the log. */
const answerMaxMs = 10_000
/** How long it is told that commits did not wait for a moment: longer than what looks once a second needs. */
const recallMs = 5000

export type WatchOptions = {
  /** A connection of the watch's own. */
  readonly session: Session
  readonly flavor: Flavor
  /** Where the source should wait for us: what was seen of that before, over all connections. */
  readonly waiting: Waiting | undefined
  /** What keeps the source's commits from waiting; undefined when they do. Told each time it was looked. */
  readonly onVerdict: (said: string | undefined) => void
  /** The server does not answer any more. */
  readonly onLost: (error: Fault) => void
}

/**
 * Asks the server once a second where its log ends, and whether its commits wait for us. The time of an answer is the
 * server's own, read before the end of the log: however late the bytes arrive and whatever clocks do, the log was
 * complete to that place then. (A heartbeat of the stream bears no time.)
 */
export class LogWatch implements AsyncDisposable {
  readonly #options: WatchOptions
  readonly #done = new AbortController()
  readonly #running: Promise<void>
  #noted: { readonly end: Place; readonly timeUs: bigint } | undefined

  constructor(options: WatchOptions, signal: AbortSignal) {
    this.#options = options
    options.session.limitSilence(answerMaxMs)
    this.#running = this.#run(AbortSignal.any([signal, this.#done.signal]))
  }

  /** The newest time at which the log ended before `place`, or there; each is told once. */
  takeTimeUs(place: Place): bigint | undefined {
    const noted = this.#noted
    if (!noted || comparePlaces(noted.end, place) > 0) return undefined
    this.#noted = undefined
    return noted.timeUs
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#done.abort()
    await this.#running
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { waiting, onVerdict, onLost } = this.#options
    try {
      for (;;) {
        await this.#ask(signal)
        await systemTime.sleep(askEveryMs, signal)
      }
    } catch (error) {
      if (signal.aborted) return
      if (isFault(error, 'unreachable', 'timeout')) onLost(error)
      else if (waiting) onVerdict(`it cannot be read whether commits wait: ${String(error)}`)
      else onLost(new Fault('unreachable', `watch the log: ${String(error)}`, { cause: error }))
    }
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const { session, flavor, waiting, onVerdict } = this.#options
    if (waiting) onVerdict(await waiting.look(session, flavor, signal))
    // While a note waits for its bytes a newer one would only wait longer.
    if (this.#noted) return
    const timeUs = await readClockUs(session, signal)
    const end = await readLogEnd(session, flavor, signal)
    if (end) this.#noted = { end: { file: fileNumber(end.name), offset: end.offset }, timeUs }
  }
}

/** Whether a source waits for replicas as it should, seen at moments: its counter tells of what was between them. */
export class Waiting {
  #unwaited: number | undefined
  #recalled: string | undefined
  #recalledMs = 0

  /** Undefined when commits wait, and did since the last look. */
  async look(session: Session, flavor: Flavor, signal: AbortSignal): Promise<string | undefined> {
    const rows = await session.texts(`SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%'`, { signal })
    const side = flavor.sourceWords ? '(?:source|master)' : 'master'
    const valueOf = (name: string) => {
      const pattern = new RegExp(`_${side}_${name}$`, 'i')
      return rows.find(([shown]) => pattern.test(shown ?? ''))?.[1]
    }
    const status = valueOf('status') ?? undefined
    this.#count(Number(valueOf('no_tx') ?? 0))
    if (status === undefined) return 'the source has no semi-synchronous replication'
    if (status !== 'ON') {
      return 'the source fell back to asynchronous replication: commits do not wait for the vault'
    }
    const isRecent = systemTime.monotonicMs() - this.#recalledMs < recallMs
    return isRecent ? this.#recalled : undefined
  }

  #count(unwaited: number): void {
    // A counter that is lower than it was began anew, with the server.
    const before = (this.#unwaited ?? unwaited) > unwaited ? 0 : (this.#unwaited ?? unwaited)
    this.#unwaited = unwaited
    if (unwaited === before) return
    this.#recalled = `the source fell back to asynchronous replication for a moment: ${unwaited - before} commits did not wait for the vault`
    this.#recalledMs = systemTime.monotonicMs()
  }
}

async function readClockUs(session: Session, signal: AbortSignal): Promise<bigint> {
  const row = await session.one('SELECT UNIX_TIMESTAMP(NOW(6))', { signal })
  const [seconds = '0', fraction = ''] = (row?.[0] ?? '0').split('.')
  return BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(6, '0').slice(0, 6))
}
