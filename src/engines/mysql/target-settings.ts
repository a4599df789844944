import { isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { readVariables } from './server.ts'

/** What a target is set to while it is filled, where it lets us; every one is put back afterwards. */
const wanted: readonly (readonly [name: string, value: string])[] = [
  ['innodb_flush_log_at_trx_commit', '2'],
  ['sync_binlog', '0'],
  ['local_infile', 'ON'],
  ['event_scheduler', 'OFF'],
  ['max_allowed_packet', '1073741824'],
]

/** Global settings of a target for the time of a restore. */
export class TargetSettings implements AsyncDisposable {
  /** Whether sessions may keep what they do out of the target's binary log. */
  readonly unlogged: boolean
  readonly #session: Session
  readonly #before: readonly (readonly [string, string])[]

  private constructor(
    session: Session,
    before: readonly (readonly [string, string])[],
    unlogged: boolean,
  ) {
    this.#session = session
    this.#before = before
    this.unlogged = unlogged
  }

  static async open(endpoint: Endpoint, log: Log, signal: AbortSignal): Promise<TargetSettings> {
    const session = await Session.open(endpoint, { signal })
    await session.query('SET SESSION wait_timeout = 86400', { signal })
    const names = wanted.map(([name]) => name)
    const present = await readVariables(session, names, signal)
    const before: (readonly [string, string])[] = []
    for (const [name, value] of wanted) {
      const old = present.get(name)
      if (old === undefined || old === value || old === 'DISABLED') continue
      if (await allowed(session, `SET GLOBAL ${name} = ${value}`, signal)) before.push([name, old])
      else log.info(`the target keeps ${name} at ${old}`)
    }
    const unlogged = await allowed(session, 'SET SESSION sql_log_bin = 0', signal)
    return new TargetSettings(session, before, unlogged)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Not with the caller's signal: what was changed goes back also when the restore was broken off.
    const signal = AbortSignal.timeout(10_000)
    for (const [name, value] of this.#before) {
      if (this.#session.alive)
        await this.#session.query(`SET GLOBAL ${name} = ${value}`, { signal })
    }
    await this.#session[Symbol.asyncDispose]()
  }
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
