import { isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Endpoint } from './protocol/endpoint.ts'
import { forgetSetting, noteSetting, readSettings } from './copy-marks.ts'
import { Session } from './protocol/session.ts'
import { readVariables } from './server.ts'

/** What a target is set to while it is filled, where it lets us; every one is put back afterwards. */
const wanted: readonly (readonly [name: string, value: string])[] = [
  ['innodb_flush_log_at_trx_commit', '2'],
  ['sync_binlog', '0'],
  ['local_infile', 'ON'],
  ['max_allowed_packet', '1073741824'],
]

/** A restore replays a log: no event may run meanwhile. */
const wantedByRestore = [...wanted, ['event_scheduler', 'OFF']] as const

/** Global settings of a target for the time of a restore or a copy. */
export class TargetSettings implements AsyncDisposable {
  /** Whether sessions may keep what they do out of the target's binary log. */
  readonly unlogged: boolean
  readonly #session: Session
  readonly #before: readonly (readonly [string, string])[]
  readonly #noted: boolean

  private constructor(
    session: Session,
    before: readonly (readonly [string, string])[],
    facts: { readonly unlogged: boolean; readonly noted: boolean },
  ) {
    this.#session = session
    this.#before = before
    this.unlogged = facts.unlogged
    this.#noted = facts.noted
  }

  static async open(endpoint: Endpoint, log: Log, signal: AbortSignal): Promise<TargetSettings> {
    const session = await Session.open(endpoint, { signal })
    await session.query('SET SESSION wait_timeout = 86400', { signal })
    const before = await change(session, wantedByRestore, log, { signal })
    const unlogged = await allowed(session, 'SET SESSION sql_log_bin = 0', signal)
    return new TargetSettings(session, before, { unlogged, noted: false })
  }

  /**
   * For a copy, which may run for days: what is changed is noted on the target first, so that a link that was killed puts
   * it back when it ends at last. The notes' tables are there.
   */
  static async openNoted(
    endpoint: Endpoint,
    log: Log,
    signal: AbortSignal,
  ): Promise<TargetSettings> {
    const session = await Session.open(endpoint, { signal })
    await session.query(`SET SESSION wait_timeout = ${7 * 24 * 3600}`, { signal })
    const noted = await readSettings(session, { signal })
    const notes = {
      add: (name: string, value: string) => noteSetting(session, name, value, { signal }),
      // It could not be set after all: only what an older link noted stays.
      drop: async (name: string) => {
        if (!noted.has(name)) await forgetSetting(session, name, { signal })
      },
    }
    const changed = await change(session, wanted, log, { signal, notes })
    for (const [name, value] of changed) if (!noted.has(name)) noted.set(name, value)
    return new TargetSettings(session, [...noted], { unlogged: false, noted: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Not with the caller's signal: what was changed goes back also when the work was broken off.
    const signal = AbortSignal.timeout(10_000)
    for (const [name, value] of this.#before) {
      if (!this.#session.alive) break
      await this.#session.query(`SET GLOBAL ${name} = ${value}`, { signal })
      if (this.#noted) await forgetSetting(this.#session, name, { signal })
    }
    await this.#session[Symbol.asyncDispose]()
  }
}

type Changing = {
  readonly signal: AbortSignal
  readonly notes?:
    | {
        add(name: string, value: string): Promise<void>
        drop(name: string): Promise<void>
      }
    | undefined
}

/** Sets what the target lets us set; returns what was before. */
async function change(
  session: Session,
  settings: readonly (readonly [string, string])[],
  log: Log,
  { signal, notes }: Changing,
): Promise<(readonly [string, string])[]> {
  const names = settings.map(([name]) => name)
  const present = await readVariables(session, names, signal)
  const before: (readonly [string, string])[] = []
  for (const [name, value] of settings) {
    const old = present.get(name)
    if (old === undefined || old === value || old === 'DISABLED') continue
    await notes?.add(name, old)
    if (await allowed(session, `SET GLOBAL ${name} = ${value}`, signal)) before.push([name, old])
    else {
      log.info(`the target keeps ${name} at ${old}`)
      await notes?.drop(name)
    }
  }
  return before
}

async function allowed(session: Session, sql: string, signal: AbortSignal): Promise<boolean> {
  try {
    await session.query(sql, { signal })
    return true
  } catch (error) {
    if (!isFault(error, 'denied', 'engine')) throw error
    return false
  }
}
