import { Reader } from '#base/bytes'
import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import type { LogReader, Position } from '#change'
import { CommitFinder, verbOf } from './binlog/commits.ts'
import {
  decodeHeader,
  decodeQuery,
  type EventHeader,
  eventType,
  type FormatDescription,
  headerSize,
  isRows,
  type QueryEvent,
} from './binlog/event.ts'
import { unpackPayload } from './binlog/payload.ts'
import { type Collation, statementSettings, userVariable } from './binlog/settings.ts'
import { encodeEvent, type LargeEvent, type LogEvent, readEvents } from './binlog/stream.ts'
import { LoadedFiles } from './loaded-files.ts'
import type { ReplayPlan } from './plan.ts'
import { binlogText } from './binlog/text.ts'
import { RowBatch } from './row-batch.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { serverErrorNumber } from './protocol/server-error.ts'
import type { Session } from './protocol/session.ts'
import { openReplaySession, readCollations } from './replay-session.ts'
import type { Flavor } from './flavor.ts'
import { createGtidSet, type GtidSet } from './gtid.ts'
import { judge } from './statements.ts'
import type { Selection } from './targets.ts'

export type ReplayOptions = {
  readonly endpoint: Endpoint
  readonly archive: LogReader
  readonly first: Position
  /** The source's. */
  readonly family: Flavor['family']
  /** Transactions that the base holds: what another server's log repeats of them is passed over. */
  readonly gtids: string
  readonly plan: ReplayPlan
  /** The source's `innodb_native_foreign_keys` was on: cascades are in no log of it, whatever its version. */
  readonly nativeForeignKeys: boolean
  readonly selection: Selection
  /** Keep what is replayed out of the target's own binary log. */
  readonly unlogged: boolean
  readonly signal: AbortSignal
  readonly progress: Progress
  readonly log: Log
}

const suppressUseFlag = 0x8
const togetherMax = 100

/** Runs the archived log into the target up to the plan's last transaction; returns all transactions it then holds. */
export async function replay(options: ReplayOptions): Promise<GtidSet> {
  const session = await openReplaySession(options)
  await using _ = session
  const replayer = new Replayer(session, options, await readCollations(session, options.signal))
  await replayer.run()
  return replayer.gtids
}

class Replayer {
  readonly gtids: GtidSet
  readonly #main: Session
  /** Where events go: the main session, or one of its own for an XA transaction that is being prepared. */
  #session: Session
  readonly #options: ReplayOptions
  readonly #collations: ReadonlyMap<number, Collation>
  #finder = new CommitFinder()
  #done = 0
  #rows: RowBatch | undefined
  #format: FormatDescription | undefined
  #settings = ''
  #database = ''
  /** Transactions of the source that wait for one commit. */
  #together = 0
  /** Whether one of them is being replayed. */
  #inside = false
  /** Whether it holds more than rows. */
  #mixed = false
  /** Whether the group under way is passed over: the base, or the log so far, has it. */
  #skipping = false
  readonly #loads = new LoadedFiles()

  constructor(
    session: Session,
    options: ReplayOptions,
    collations: ReadonlyMap<number, Collation>,
  ) {
    this.#main = session
    this.#session = session
    this.#options = options
    this.#collations = collations
    this.gtids = createGtidSet(options.family, options.gtids)
  }

  async run(): Promise<void> {
    const { archive, first, plan, signal, progress } = this.#options
    progress.phase = 'replay log'
    progress.totalItems = plan.transactions
    progress.doneItems = 0
    if (plan.transactions === 0) return
    for await (const event of readEvents(archive, first, {
      signal,
      wants: () => true,
      pieces: true,
    })) {
      await this.#take(event)
      if (this.#done >= plan.transactions) break
    }
    await this.#close()
    if (this.#done < plan.transactions) {
      throw new Fault(
        'gap',
        `replay log: ${this.#done} of ${plan.transactions} transactions were there`,
      )
    }
  }

  async #take(event: LogEvent): Promise<void> {
    const { header, body, format } = event
    if (event.large) return this.#large(event.large)
    if (!body) throw new Fault('corrupt', `replay log at ${event.segment}: an event has no body`)
    if (header.type === eventType.formatDescription) return this.#begin(header, body, format)
    const wasIdle = this.#finder.idle
    const ended = this.#finder.take(header, body)
    const named = this.#finder.current ?? ended
    if (wasIdle || header.type === eventType.gtid) this.#decide(event, named?.id ?? '')
    if (!this.#skipping) await this.#apply(header, body, format)
    if (!ended) return
    if (ended.id !== '') this.gtids.add(ended.id)
    this.#skipping = false
    this.#done += 1
    this.#options.progress.doneItems = this.#done
  }

  /** A log of another server begins with transactions that this one has. */
  #decide(event: LogEvent, id: string): void {
    const foreign = event.history !== this.#options.first.history
    this.#skipping = foreign && id !== '' && this.gtids.has(id)
  }

  /** A new file. A transaction that is still open was cut off by a crash of the source. */
  async #begin(header: EventHeader, body: Buffer, format: FormatDescription): Promise<void> {
    if (!this.#finder.idle) await this.#end('ROLLBACK')
    await this.#close()
    this.#finder.reset()
    this.#skipping = false
    this.#format = format
    this.#rows = new RowBatch(format, this.#options.selection, this.#options.nativeForeignKeys)
    await this.#describeFormat(this.#main, header, body)
    this.#header = { header, body }
  }

  #header: { readonly header: EventHeader; readonly body: Buffer } | undefined

  /** Row events mean something only behind the description of their file. */
  async #describeFormat(session: Session, header: EventHeader, body: Buffer): Promise<void> {
    // A format description bears a checksum even where the other events of its file do not.
    const described = this.#format?.checksums ? body : body.subarray(0, body.length - 4)
    const event = encodeEvent(header, described, true)
    await session.query(`BINLOG '${event.toString('base64')}'`, this.#options)
    // The description of a MySQL file leaves open which GTID comes next: a new one of the target's own.
    if (this.#format?.family === 'mysql') {
      await session.query(`SET @@session.gtid_next = 'AUTOMATIC'`, this.#options)
    }
  }

  /** A row that does not fit in memory several times over goes through in pieces. */
  async #large(event: LargeEvent): Promise<void> {
    if (this.#skipping || !this.#rows) return
    const pieces = event.pieces()
    const first = await pieces.next()
    if (first.done) throw new Fault('corrupt', 'replay log: a large event is empty')
    for (const statement of this.#rows.large(event, first.value)) {
      if (!('event' in statement)) {
        await this.#binlog(statement)
        continue
      }
      const { sizeBytes, text } = binlogText(statement, pieces)
      await this.#session.queryStream(sizeBytes, text, this.#options, 'replay a large row')
    }
  }

  async #apply(header: EventHeader, body: Buffer, format: FormatDescription): Promise<void> {
    const rows = this.#rows
    if (!rows) throw new Fault('corrupt', 'replay log: no format description came first')
    if (header.type === eventType.tableMap || isRows(header.type)) {
      for (const statement of rows.take(header, body)) await this.#binlog(statement)
      return
    }
    await this.#other(header, body, format)
  }

  async #other(header: EventHeader, body: Buffer, format: FormatDescription): Promise<void> {
    switch (header.type) {
      case eventType.query:
      case eventType.queryCompressed:
        return this.#query(header, decodeQuery(body, header.type), format)
      case eventType.xid:
        return this.#end('COMMIT')
      case eventType.xaPrepare:
        return this.#prepareXa(body)
      case eventType.mariadbGtid:
        return this.#mariadbGroup(body)
      case eventType.intVar:
        return this.#run(intVariable(body))
      case eventType.random: {
        const reader = new Reader(body, 'random event')
        return this.#run(
          `SET @@session.rand_seed1 = ${reader.u64le()}, @@session.rand_seed2 = ${reader.u64le()}`,
        )
      }
      case eventType.userVariable:
        return this.#run(userVariable(body, this.#collations))
      case eventType.beginLoadQuery:
      case eventType.appendBlock:
        return this.#loads.collect(body)
      case eventType.executeLoadQuery:
        return this.#load(header, body, format)
      case eventType.transactionPayload:
        return this.#payload(body, format)
      case eventType.incident:
        throw new Fault('gap', 'replay log: the source wrote that it lost events here', {
          hint: 'Restore from a later base.',
        })
      default:
        // Marks for replicas and readers: nothing to do.
        return
    }
  }

  /**
   * Several transactions of the source are committed as one: a restore that fails is begun anew, so nobody can see the
   * difference, and the target is spared most of its commits. A transaction with statements among its rows ends a run.
   */
  async #open(): Promise<void> {
    if (this.#together === 0) await this.#run('START TRANSACTION')
    else await this.#run('SAVEPOINT redoubt')
    this.#together += 1
    this.#inside = true
  }

  /** `COMMIT`, or `ROLLBACK` of this one alone, not of those that wait with it for their commit. */
  async #end(verb: string): Promise<void> {
    this.#inside = false
    if (verb.trim().toUpperCase() === 'ROLLBACK') {
      const alone = this.#together <= 1
      await this.#run(alone ? 'ROLLBACK' : 'ROLLBACK TO SAVEPOINT redoubt')
      if (alone) this.#together = 0
    }
    if (this.#together >= togetherMax || this.#mixed) await this.#close()
  }

  async #close(): Promise<void> {
    this.#mixed = false
    if (this.#together === 0) return
    this.#together = 0
    await this.#run('COMMIT')
  }

  /** MariaDB's GTID event itself opens a transaction, unless one statement stands alone or an XA transaction ends. */
  async #mariadbGroup(body: Buffer): Promise<void> {
    const reader = new Reader(body, 'GTID event', 12)
    const flags = reader.u8()
    if ((flags & (1 | 128)) !== 0) return
    if ((flags & 64) === 0) return this.#open()
    if ((flags & 2) !== 0) reader.skip(8)
    const formatId = reader.u32le()
    const globalSize = reader.u8()
    const branchSize = reader.u8()
    const name = xaName(reader.view(globalSize), reader.view(branchSize), formatId)
    await this.#startXa(Buffer.from(`XA START ${name}`))
  }

  async #query(header: EventHeader, query: QueryEvent, format: FormatDescription): Promise<void> {
    const verb = verbOf(query.sql)
    if (verb === 'begin') return this.#open()
    if (verb === 'end') return this.#end(query.sql.toString('latin1'))
    if (verb === 'xa-start') return this.#startXa(query.sql)
    if (judge(query.sql, query.database.toString(), this.#options.selection) === 'none') return
    await this.#statement(header, query, query.sql, format)
  }

  async #statement(
    header: EventHeader,
    query: QueryEvent,
    sql: Buffer,
    format: FormatDescription,
  ): Promise<void> {
    // A statement by itself would commit what is open, and is not to be rolled back with it.
    if (this.#inside) this.#mixed = true
    else await this.#close()
    const { assignments } = statementSettings(header, query, format.family, this.#collations)
    const settings = `SET ${assignments.join(', ')}`
    if (settings !== this.#settings) await this.#run(settings)
    this.#settings = settings
    const database = query.database.toString()
    if ((header.flags & suppressUseFlag) === 0 && database !== '' && database !== this.#database) {
      // In latin1 so that no byte of the name is changed by the session's own character set.
      const name = query.database.toString('latin1').replaceAll('`', '``')
      await this.#raw(Buffer.from(`USE \`${name}\``, 'latin1'))
      this.#database = database
    }
    try {
      await this.#raw(sql)
    } catch (error) {
      // The source itself ended this statement with an error, after it had changed something.
      const number = serverErrorNumber(error)
      if (query.errorCode === 0 || number !== query.errorCode) throw error
    }
    if (
      /^\s*(?:\/\*.*?\*\/\s*)?drop\s+(?:database|schema)\b/is.test(
        sql.subarray(0, 200).toString('latin1'),
      )
    ) {
      this.#database = ''
    }
  }

  async #binlog(events: readonly Buffer[]): Promise<void> {
    const body = Buffer.concat(events).toString('base64')
    await this.#raw(Buffer.from(`BINLOG '${body}'`, 'latin1'))
  }

  /**
   * A prepared XA transaction stays in its session until it is decided, maybe much later: it gets a session of its own,
   * and outlives it.
   */
  async #startXa(sql: Buffer): Promise<void> {
    await this.#close()
    const session = await openReplaySession(this.#options)
    if (this.#header) await this.#describeFormat(session, this.#header.header, this.#header.body)
    this.#session = session
    this.#settings = ''
    this.#database = ''
    await this.#raw(sql)
  }

  async #prepareXa(body: Buffer): Promise<void> {
    const reader = new Reader(body, 'XA prepare event')
    const onePhase = reader.u8() !== 0
    const formatId = reader.u32le()
    const globalSize = reader.u32le()
    const branchSize = reader.u32le()
    const name = xaName(reader.view(globalSize), reader.view(branchSize), formatId)
    await this.#run(onePhase ? `XA COMMIT ${name} ONE PHASE` : `XA PREPARE ${name}`)
    await this.#session[Symbol.asyncDispose]()
    this.#session = this.#main
    this.#settings = ''
    this.#database = ''
  }

  /** LOAD DATA in statement format. */
  async #load(header: EventHeader, body: Buffer, format: FormatDescription): Promise<void> {
    const { query, sql, content } = this.#loads.take(body)
    await this.#statement(header, { ...query, errorCode: 0 }, Buffer.from('DO 0'), format)
    await this.#session.load(sql, content, this.#options)
  }

  /** MySQL's compressed transaction: its events come without checksums. */
  async #payload(body: Buffer, format: FormatDescription): Promise<void> {
    for await (const event of unpackPayload(body)) {
      const header = decodeHeader(event)
      // The end of the transaction inside must not be counted a second time: only the envelope's is.
      await this.#apply(header, event.subarray(headerSize), format)
    }
  }

  async #run(sql: string): Promise<void> {
    await this.#raw(Buffer.from(sql))
  }

  async #raw(sql: Buffer): Promise<void> {
    try {
      await this.#session.query(sql, this.#options)
    } catch (error) {
      if (isFault(error, 'engine') && serverErrorNumber(error) === 1153) {
        throw new Fault('engine', error.message, {
          hint: 'Raise max_allowed_packet on the target to its maximum, 1G.',
          cause: error,
        })
      }
      throw error
    }
  }
}

function xaName(global: Buffer, branch: Buffer, formatId: number): string {
  return `X'${global.toString('hex')}',X'${branch.toString('hex')}',${formatId}`
}

function intVariable(body: Buffer): string {
  const reader = new Reader(body, 'integer event')
  const type = reader.u8()
  return `SET ${type === 1 ? 'last_insert_id' : 'insert_id'} = ${reader.u64le()}`
}
