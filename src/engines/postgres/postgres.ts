import type { Finding } from '#change/finding'
import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { LogSource, Target } from '#change'
import type {
  BaseFacts,
  BaseOptions,
  BaseSink,
  Engine,
  EngineKind,
  LogOptions,
  SourceFacts,
  Use,
} from '#engines'
import { PostgresApply } from './apply/apply.ts'
import { takePhysicalBase } from './base.ts'
import { PostgresChanges } from './changes/changes.ts'
import { type Address, openSession, parseAddress, type Session } from './connection.ts'
import { PostgresDigest } from './digest/digest.ts'
import { readFacts, type ServerFacts, toSourceFacts } from './facts.ts'
import { PostgresLog } from './log.ts'
import { toAt, tryParseLsn } from './lsn.ts'
import { probePostgres } from './probe.ts'
import { provePostgres } from './prove.ts'
import { restorePostgres } from './restore.ts'
import { PostgresRows } from './rows.ts'
import { PostgresSchema } from './schema.ts'

/** The prefix of the logical messages that `beat` writes. */
export const beatPrefix = 'redoubt'

/** PostgreSQL 12 to 18, over the replication protocol and ordinary SQL. */
export const postgres: EngineKind = {
  name: 'postgres',
  schemes: ['postgres', 'postgresql'],

  async open(url, { signal, log }) {
    const address = parseAddress(url)
    const session = await openSession(address, { signal })
    try {
      return new PostgresEngine(address, session, await readFacts(session, signal), log)
    } catch (error) {
      await session[Symbol.asyncDispose]()
      throw error
    }
  },

  parseTarget,
  restore: restorePostgres,
  prove: provePostgres,
}

/** An LSN as the server writes it, `xid:4711`, or `point:NAME` of pg_create_restore_point. */
function parseTarget(text: string): Target | undefined {
  const lsn = tryParseLsn(text)
  if (lsn !== undefined) return { kind: 'position', at: toAt(lsn) }
  if (/^[0-9A-F]{16}$/.test(text)) return { kind: 'position', at: text }
  const commit = /^xid:(\d{1,10})$/.exec(text)
  if (commit) return { kind: 'commit', id: commit[1] ?? '' }
  const point = /^point:(.+)$/s.exec(text)
  if (point) return { kind: 'name', name: point[1] ?? '' }
  return undefined
}

class PostgresEngine implements Engine {
  readonly facts: SourceFacts
  readonly schema: PostgresSchema
  readonly rows: PostgresRows
  readonly changes: PostgresChanges
  readonly digest: PostgresDigest
  readonly apply: PostgresApply
  readonly #address: Address
  readonly #server: ServerFacts
  readonly #log: Log
  #session: Session

  constructor(address: Address, session: Session, server: ServerFacts, log: Log) {
    this.#address = address
    this.#session = session
    this.#server = server
    this.#log = log
    this.facts = toSourceFacts(server)
    this.schema = new PostgresSchema(address, server)
    this.rows = new PostgresRows(address, server)
    this.changes = new PostgresChanges(address, server)
    this.digest = new PostgresDigest(address)
    this.apply = new PostgresApply(address)
  }

  async probe(use: Use, options: { readonly signal: AbortSignal }): Promise<Finding[]> {
    const session = await this.#ask(options.signal)
    const facts = await readFacts(session, options.signal)
    return probePostgres({ address: this.#address, facts, session, use, ...options })
  }

  async takeBase(sink: BaseSink, options: BaseOptions): Promise<BaseFacts> {
    if (options.form === 'logical') {
      throw new Fault('unsupported', 'take a logical base: PostgreSQL bases are physical', {
        hint: 'Leave out --base, and restore single tables with --only.',
      })
    }
    const session = await this.#ask(options.signal)
    const facts = await readFacts(session, options.signal)
    this.#sameSystem(facts)
    return takePhysicalBase(this.#address, facts, sink, options)
  }

  async openLog(options: LogOptions): Promise<LogSource & AsyncDisposable> {
    return new PostgresLog(this.#address, this.#server.systemId, options)
  }

  async beat(options: { readonly signal: AbortSignal }): Promise<boolean> {
    const session = await this.#ask(options.signal)
    try {
      await session.query(
        `select pg_logical_emit_message(false, $1, (extract(epoch from clock_timestamp()) * 1000000)::bigint::text)`,
        { signal: options.signal, values: [beatPrefix], doing: 'write a heartbeat' },
      )
      return true
    } catch (error) {
      // 55000 in recovery, 42501 where the right was taken away: it may not, and that is no failure.
      if (isFault(error, 'engine', 'denied')) {
        this.#log.debug('wrote no heartbeat', { cause: error.message })
        return false
      }
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session[Symbol.asyncDispose]()
  }

  // The session is idle for hours between bases: after a restart of the server it is a new one.
  async #ask(signal: AbortSignal): Promise<Session> {
    if (!this.#session.alive) this.#session = await openSession(this.#address, { signal })
    return this.#session
  }

  #sameSystem(facts: ServerFacts): void {
    if (facts.systemId === this.#server.systemId) return
    throw new Fault(
      'source-changed',
      `take a base of system ${this.#server.systemId}: the server is system ${facts.systemId}`,
    )
  }
}
