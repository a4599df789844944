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
import { MysqlApply } from './apply/apply.ts'
import { takeLogicalBase } from './base.ts'
import { writeBeat } from './beat.ts'
import { MysqlDigest } from './digest/digest.ts'
import { MysqlChanges } from './changes/changes.ts'
import { MysqlRows } from './copy-rows.ts'
import { type Flavor, parseFlavor } from './flavor.ts'
import { isGtid } from './gtid.ts'
import { readFacts } from './facts.ts'
import { BinlogSource } from './log.ts'
import { takePhysicalBase } from './physical.ts'
import { fileNumber, formatPlace, parsePlace } from './position.ts'
import { probeMysql } from './probe.ts'
import { proveMysql } from './prove.ts'
import { type Endpoint, parseEndpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { restoreMysql } from './restore.ts'
import { MysqlSchema } from './schema.ts'

/** MySQL 5.6 to 9 and MariaDB 10.5 to 12. */
export const mysql: EngineKind = {
  name: 'mysql',
  schemes: ['mysql', 'mariadb'],
  open: openMysql,
  parseTarget,
  restore: restoreMysql,
  prove: proveMysql,
}

const oldest = { mysql: 50_600, mariadb: 100_500 } as const

async function openMysql(
  url: string,
  options: { readonly signal: AbortSignal; readonly log: Log },
): Promise<Engine> {
  const { signal, log } = options
  const endpoint = parseEndpoint(url)
  const session = await Session.open(endpoint, { signal })
  try {
    const row = await session.one('SELECT @@global.version', { signal })
    const flavor = parseFlavor(row?.[0] ?? '')
    if (flavor.number < oldest[flavor.family]) {
      throw new Fault('unsupported', `open ${endpoint.shown}: ${flavor.version} is too old`, {
        hint: 'MySQL is supported from 5.6 on, MariaDB from 10.5 on.',
      })
    }
    return new MysqlEngine(endpoint, flavor, await readFacts(session, flavor, signal), session, log)
  } catch (error) {
    session.destroy()
    throw error
  }
}

/** A GTID of either family, `binlog.000012:4567`, or a position as Redoubt writes it. */
function parseTarget(text: string): Target | undefined {
  if (isGtid(text)) return { kind: 'commit', id: text.toLowerCase() }
  const place = /^(.+\.\d{6,10}):(\d+)$/.exec(text)
  if (place) {
    const at = { file: fileNumber(place[1] ?? ''), offset: Number(place[2]) }
    return { kind: 'position', at: formatPlace(at) }
  }
  if (/^\d{10}\.\d{12}(\.[0-9a-f]{8})?$/.test(text)) {
    return { kind: 'position', at: formatPlace(parsePlace(text)) }
  }
  return undefined
}

class MysqlEngine implements Engine {
  readonly facts: SourceFacts
  readonly schema: MysqlSchema
  readonly rows: MysqlRows
  readonly changes: MysqlChanges
  readonly apply: MysqlApply
  readonly digest: MysqlDigest
  readonly #endpoint: Endpoint
  readonly #flavor: Flavor
  readonly #log: Log
  #session: Session
  #mayBeat = true

  constructor(endpoint: Endpoint, flavor: Flavor, facts: SourceFacts, session: Session, log: Log) {
    this.#endpoint = endpoint
    this.#flavor = flavor
    this.facts = facts
    this.schema = new MysqlSchema(endpoint, flavor)
    const source = { endpoint, flavor, history: facts.history }
    this.rows = new MysqlRows(source)
    this.changes = new MysqlChanges(source)
    this.apply = new MysqlApply(source)
    this.digest = new MysqlDigest(source)
    this.#session = session
    this.#log = log
  }

  async probe(use: Use, options: { readonly signal: AbortSignal }): Promise<Finding[]> {
    return probeMysql(await this.#ask(options.signal), this.#flavor, use, options.signal)
  }

  async takeBase(sink: BaseSink, options: BaseOptions): Promise<BaseFacts> {
    const source = {
      endpoint: this.#endpoint,
      flavor: this.#flavor,
      history: this.facts.history,
    }
    if (options.form === 'physical') return takePhysicalBase(source, sink, options)
    return takeLogicalBase(source, sink, options)
  }

  async openLog(options: LogOptions): Promise<LogSource & AsyncDisposable> {
    return new BinlogSource(this.#endpoint, this.#flavor, this.facts.history, options)
  }

  async beat(options: { readonly signal: AbortSignal }): Promise<boolean> {
    if (!this.#mayBeat) return false
    try {
      this.#mayBeat = await writeBeat(await this.#ask(options.signal), options.signal)
    } catch (error) {
      // A server that is away now may be back for the next one.
      if (!isFault(error, 'unreachable', 'timeout')) throw error
      this.#log.debug('no heartbeat could be written', { said: error.message })
    }
    return this.#mayBeat
  }

  /** One session for questions, made again when the server closed it. */
  async #ask(signal: AbortSignal): Promise<Session> {
    if (!this.#session.alive) this.#session = await Session.open(this.#endpoint, { signal })
    return this.#session
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session[Symbol.asyncDispose]()
  }
}
