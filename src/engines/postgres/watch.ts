import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { systemTime } from '#base/time'
import type { LogBeat } from '#change'
import { type Address, openSession, type Session } from './connection.ts'
import { parseLsn, toAt } from './lsn.ts'

const askEveryMs = 1_000
/** A question that is not answered for so long means a connection that is half-open: so may be that of the log. */
const answerMaxMs = 10_000
/** Beats that wait for their bytes; older ones go, a newer one says more. */
const beatsMax = 64

type Options = {
  readonly address: Address
  readonly slot: string
  readonly log: Log
  readonly strict: boolean
  readonly onDegraded: ((said: string | undefined) => void) | undefined
}

// The clock is read before the end of the log: the other way round what commits in between would count as had.
const question = `
  select
    (extract(epoch from clock_timestamp()) * 1000000)::bigint as time_us,
    case when pg_is_in_recovery()
      then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
      else pg_current_wal_flush_lsn() end as lsn,
    to_jsonb(s) ->> 'wal_status' as wal_status,
    (select sync_state from pg_stat_replication r where r.pid = s.active_pid) as sync_state,
    current_setting('synchronous_standby_names') as standby_names
  from (select 1) one
  left join pg_replication_slots s on s.slot_name = $1`

/**
 * Asks the server once a second, over a session of its own, where its log ends, how the slot stands, and whether
 * commits wait for us. A keepalive of the stream tells only what was sent to us, not what waits to be sent.
 */
export class LogWatch implements AsyncDisposable {
  readonly #options: Options
  readonly #beats: { readonly lsn: bigint; readonly timeUs: bigint }[] = []
  #task: Promise<void> | undefined
  #failure: unknown
  #silent: Fault | undefined
  /** What was last told; null before the first word, so that the end of an older alarm is told too. */
  #degraded: string | undefined | null = null

  constructor(options: Options) {
    this.#options = options
  }

  /** Begins to ask, if it did not yet: once the stream runs, and with it the slot is there. */
  start(signal: AbortSignal): void {
    this.#task ??= this.#run(signal).catch((error: unknown) => {
      if (!signal.aborted) this.#failure = error
    })
  }

  /** Throws what ended the watch (a lost slot), and once, when the server does not answer: the stream connects anew then. */
  check(): void {
    if (this.#failure instanceof Error) throw this.#failure
    const silent = this.#silent
    this.#silent = undefined
    if (silent) throw silent
  }

  /** The beats whose bytes have all come, only the newest of them. */
  *beats(history: string, read: bigint): Generator<LogBeat, void, void> {
    const covered = this.#beats.findLastIndex((beat) => beat.lsn <= read)
    const [beat] = covered < 0 ? [] : this.#beats.splice(0, covered + 1).slice(-1)
    if (beat) yield { kind: 'beat', history, at: toAt(beat.lsn), timeUs: beat.timeUs }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#task
  }

  async #run(signal: AbortSignal): Promise<void> {
    let session: Session | undefined
    try {
      for (;;) {
        try {
          session ??= await openSession(this.#options.address, { signal })
          await this.#ask(session, signal)
        } catch (error) {
          signal.throwIfAborted()
          // The stream itself reports a server that is away; the watch only asks again.
          if (!isFault(error, 'unreachable', 'timeout')) throw error
          if (error.code === 'timeout') this.#silent = error
          await session?.[Symbol.asyncDispose]()
          session = undefined
        }
        await systemTime.sleep(askEveryMs, signal)
      }
    } finally {
      await session?.[Symbol.asyncDispose]()
    }
  }

  async #ask(session: Session, signal: AbortSignal): Promise<void> {
    const { slot, address } = this.#options
    const patience = AbortSignal.timeout(answerMaxMs)
    const options = {
      signal: AbortSignal.any([signal, patience]),
      values: [slot],
      doing: 'watch the log',
    }
    const [row] = await session.query(question, options).catch((error: unknown) => {
      signal.throwIfAborted()
      if (!patience.aborted) throw error
      const said = `watch the log of ${address.shown}: no answer for ${answerMaxMs / 1000} s`
      throw new Fault('timeout', said, { cause: error })
    })
    const lsn = row?.['lsn'] ?? undefined
    if (lsn !== undefined) {
      this.#beats.push({ lsn: parseLsn(lsn), timeUs: BigInt(row?.['time_us'] ?? 0) })
      if (this.#beats.length > beatsMax) this.#beats.shift()
    }
    if (row?.['wal_status'] === 'lost') {
      throw new Fault('log-lost', `watch replication slot ${slot}: the server gave up its log`, {
        hint: 'Take a new base, and set max_slot_wal_keep_size higher.',
      })
    }
    this.#judge(row?.['sync_state'] ?? undefined, row?.['standby_names'] ?? '')
  }

  // A server that names us waits, also while we are not connected or have acknowledged nothing yet (`async`): that is
  // no loss of the promise. One that has another standby to satisfy it does not wait for us (`potential`).
  #judge(state: string | undefined, names: string): void {
    const { slot } = this.#options
    const named = names.includes(slot) || names.includes('*')
    if (state === 'sync' || state === 'quorum') this.#say(undefined)
    else if (!named) {
      this.#say(`commits do not wait: synchronous_standby_names does not name ${slot}`)
    } else if (state === 'potential') {
      this.#say(`commits do not wait: another standby comes before ${slot}`)
    }
  }

  #say(said: string | undefined): void {
    if (!this.#options.strict || said === this.#degraded) return
    this.#degraded = said
    this.#options.onDegraded?.(said)
  }
}
