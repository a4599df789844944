import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Batch, Change, Relation, RowRun, Statement, Transaction } from '#change/batch'
import type { Selection } from '#change/schema'
import { CommitFinder, wantsBody } from '../binlog/commits.ts'
import {
  decodeGtidList,
  decodePreviousGtids,
  decodeQuery,
  eventType,
  inflateMariadb,
  isRows,
} from '../binlog/event.ts'
import { type Collation, statementSettings } from '../binlog/settings.ts'
import { parseFlavor } from '../flavor.ts'
import { createGtidSet, type GtidSet } from '../gtid.ts'
import { formatPlace, type Place } from '../position.ts'
import { type CellRoom, type RowsJob, takeRows } from './cells.kernel.ts'
import { type RawEvent, unpackEvents } from './events.ts'
import { judgeStatement, mayRenameColumns } from './statement.ts'
import { noTable, readPacked, readTableId } from './table-map.ts'
import type { Tables } from './tables.ts'
import { decodeXaPrepare, parseXa, type Prepared, XaKeeper } from './xa.ts'

export type DecoderOptions = {
  readonly family: 'mysql' | 'mariadb'
  readonly history: string
  readonly selection: Pick<Selection, 'accepts'>
  readonly tables: Tables
  readonly collations: ReadonlyMap<number, Collation>
  /** The source's `innodb_native_foreign_keys`: cascades are in no log of it, whatever its version. */
  readonly nativeForeignKeys?: boolean | undefined
  readonly batchRowsMax: number
  readonly batchBytesMax: number
  /** Reads the events of a transaction again that was prepared in this stretch of the log, or before `last`. */
  readonly reread: (xid: string, prepared: Prepared | undefined) => AsyncIterable<RawEvent>
}

/** Work that waits, or gives out more than a batch: between its steps what is ready is taken. */
export type Steps = AsyncGenerator<void, void, void>

/** Numbers for cells are made in pieces of so many. */
const roomCells = 64 * 1024

/** The transaction that is under way. */
type Open = {
  id: string
  timeUs: bigint
  origin: string | undefined
  changes: Change[]
  rows: number
  sizeBytes: number
  /** Pieces of it were given out. */
  given: boolean
}

type Run = {
  readonly kind: RowRun['kind']
  readonly relation: Relation
  readonly cascades: boolean
  readonly bytes: Buffer
  readonly first: number
  rows: number
}

/** In the flags of a row event: the session had `foreign_key_checks` off. */
const noForeignKeysFlag = 2

/** Makes batches of the events of a log. No I/O but the two questions that it is given answers for. */
export class ChangeDecoder {
  readonly #options: DecoderOptions
  readonly #finder = new CommitFinder()
  readonly #xa = new XaKeeper()
  #gtids: GtidSet
  /** Transactions that were given out by another server's log. */
  #seen: GtidSet | undefined
  #skipping = false
  #history: string
  #open: Open | undefined
  #run: Run | undefined
  #cascades: { readonly version: string; readonly logged: boolean } | undefined
  #room: CellRoom = { cells: new Int32Array(0), used: 0 }
  #whole: Transaction[] = []
  #wholeRows = 0
  #wholeBytes = 0
  #ready: Batch[] = []
  /** Where the present group of events began. */
  #groupStart: Place = { file: 0, offset: 0 }

  constructor(options: DecoderOptions) {
    this.#options = options
    this.#history = options.history
    this.#gtids = createGtidSet(options.family)
  }

  /** Whether the log stands between transactions. */
  get idle(): boolean {
    return this.#finder.idle
  }

  /** Batches that are complete. */
  takeReady(): Batch[] {
    const ready = this.#ready
    if (ready.length > 0) this.#ready = []
    return ready
  }

  /** Gives out the transactions that ended, however few. */
  flush(): void {
    if (this.#whole.length === 0) return
    this.#ready.push({
      kind: 'batch',
      transactions: this.#whole,
      rows: this.#wholeRows,
      sizeBytes: this.#wholeBytes,
    })
    this.#whole = []
    this.#wholeRows = this.#wholeBytes = 0
  }

  /**
   * The bytes of a block were taken: what is open pins them, however little of them it is, and is cut where that comes to
   * too much.
   */
  endBlock(sizeBytes: number): void {
    const open = this.#open
    if (!open || open.changes.length + (this.#run ? 1 : 0) === 0) return
    open.sizeBytes += sizeBytes
    if (open.sizeBytes >= this.#options.batchBytesMax) this.#cut(open)
  }

  /** The next file begins. What is under way was cut off by a crash of the server, and never committed. */
  beginFile(history: string, start: Place): void {
    if (history !== this.#history) {
      this.#seen = this.#gtids
      this.#gtids = createGtidSet(this.#options.family)
      this.#history = history
    }
    this.#finder.reset()
    this.#xa.take(start)
    this.#groupStart = start
    const open = this.#open
    if (open) this.#abort(open)
  }

  /** Follows an event that was given out before: only transactions and their names are of interest. */
  pass(event: RawEvent): void {
    const { header, bytes, start, end } = event
    this.#noteGtids(event)
    const body = wantsBody(header.type) ? bytes.subarray(start, end) : undefined
    const ended = this.#finder.take(header, body)
    if (ended && ended.id !== '') this.#gtids.add(ended.id)
    this.#groupStart = event.place
  }

  /** Takes the next event: at once, or by steps where it has to ask or to unpack. */
  take(event: RawEvent): Steps | undefined {
    const { type } = event.header
    if (type === eventType.tableMap || isRows(type)) {
      if (this.#skipping) return undefined
      if (this.#xa.gathering) return this.#xa.add(event)
      return this.#rowsOrMap(event)
    }
    switch (type) {
      case eventType.transactionPayload:
        return this.#skipping ? this.#end(event) : this.#payload(event)
      case eventType.query:
      case eventType.queryCompressed:
        return this.#query(event)
      case eventType.xaPrepare:
        return this.#prepare(event)
      case eventType.executeLoadQuery:
        return this.#loadStatement(event)
      case eventType.incident:
        throw new Fault('gap', 'read binary log: the source says that changes are missing in it', {
          hint: 'Copy the data anew.',
        })
      default:
        this.#noteGtids(event)
        this.#end(event)
        return undefined
    }
  }

  #noteGtids({ header, bytes, start, end }: RawEvent): void {
    const { family } = this.#options
    const body = () => bytes.subarray(start, end)
    if (header.type === eventType.previousGtids) {
      this.#gtids = createGtidSet(family, decodePreviousGtids(body()))
    } else if (header.type === eventType.gtidList) {
      this.#gtids = createGtidSet(family, decodeGtidList(body()))
    }
  }

  /** Everything that a transaction may begin or end with goes by here. */
  #end(event: RawEvent, discard = false): undefined {
    const { header, bytes, start, end, place } = event
    const body = wantsBody(header.type) ? bytes.subarray(start, end) : undefined
    const wasIdle = this.#finder.idle
    const ended = this.#finder.take(header, body)
    if (wasIdle && !this.#finder.idle) {
      const id = this.#finder.current?.id ?? ''
      this.#skipping = id !== '' && this.#seen?.has(id) === true
      if (!this.#skipping && body && opensPrepared(header.type, body)) {
        this.#xa.begin(this.#groupStart)
      }
    }
    if (!ended) return undefined
    if (ended.id !== '') this.#gtids.add(ended.id)
    const open = this.#open
    this.#groupStart = place
    const skipped = this.#skipping
    this.#skipping = false
    this.#options.tables.forgetNumbers()
    if (skipped) return undefined
    if (open && discard) {
      this.#abort(open)
      return undefined
    }
    const done = open ?? this.#begin(event)
    done.id = ended.id
    done.timeUs = ended.timeUs
    this.#finish(done, { history: this.#history, at: formatPlace(place) })
    return undefined
  }

  #begin({ header }: RawEvent): Open {
    const current = this.#finder.current
    this.#open ??= {
      id: current?.id ?? '',
      timeUs: current?.timeUs ?? BigInt(header.timestamp) * 1_000_000n,
      origin: String(header.serverId),
      changes: [],
      rows: 0,
      sizeBytes: 0,
      given: false,
    }
    return this.#open
  }

  #finish(open: Open, position: Transaction['position']): void {
    this.#endRun()
    this.#open = undefined
    const { id, timeUs, origin, changes, given } = open
    const begins = !given
    const { batchRowsMax, batchBytesMax } = this.#options
    // The last piece of a large one stands alone, as the others do.
    const over =
      this.#wholeRows + open.rows > batchRowsMax ||
      this.#wholeBytes + open.sizeBytes > batchBytesMax
    if (given || over) this.flush()
    this.#whole.push({ id, timeUs, origin, begins, ends: true, changes, position })
    this.#wholeRows += open.rows
    this.#wholeBytes += open.sizeBytes
    const many = this.#whole.length >= batchRowsMax || this.#wholeRows >= batchRowsMax
    if (given || many || this.#wholeBytes >= batchBytesMax) this.flush()
  }

  /** It never committed: what was given out of it is to be undone. */
  #abort(open: Open): void {
    this.#run = undefined
    this.#open = undefined
    if (!open.given) return
    this.flush()
    const { id, timeUs, origin } = open
    const last = { begins: false, ends: true, aborted: true, changes: [], position: undefined }
    this.#whole.push({ id, timeUs, origin, ...last })
    this.flush()
  }

  /** Gives out what there is of a transaction that is larger than a batch. */
  #cut(open: Open): void {
    this.#endRun()
    this.flush()
    const { id, timeUs, origin, changes, rows, sizeBytes, given } = open
    const piece = { begins: !given, ends: false, changes, position: undefined }
    this.#whole = [{ id, timeUs, origin, ...piece }]
    this.#wholeRows = rows
    this.#wholeBytes = sizeBytes
    this.flush()
    open.given = true
    open.changes = []
    open.rows = open.sizeBytes = 0
  }

  #rowsOrMap(event: RawEvent): Steps | undefined {
    const { header, bytes, start, end, format } = event
    const idSize = format.postHeader(header.type) === 6 ? 4 : 6
    if (header.type === eventType.tableMap) {
      const waiting = this.#options.tables.take(bytes.subarray(start, end), idSize)
      return waiting && oneStep(waiting)
    }
    this.#rows(event, idSize)
    return undefined
  }

  #rows(event: RawEvent, idSize: number): void {
    const { header, bytes, start, end } = event
    const facts = rowEvents.get(header.type)
    if (!facts) throw new Fault('unsupported', `read rows: event type ${header.type} is too old`)
    const id = readTableId(bytes.subarray(start, end), idSize)
    const table = this.#options.tables.get(id)
    if (id === noTable || table === 'unwanted') return
    if (!table) throw new Fault('protocol', `read rows: no table map came for table ${id}`)
    const reader = new Reader(bytes.subarray(0, end), 'row event', start + idSize + 2)
    if (facts.extra) reader.skip(reader.u16le() - 2)
    const width = readPacked(reader)
    const { layout } = table
    if (width !== layout.columns) {
      throw new Fault('protocol', `read rows of ${table.map.table}: ${width} columns`)
    }
    const present = Array.from({ length: facts.kind === 'update' ? 2 : 1 }, () =>
      readPresent(reader, width),
    )
    const plain = facts.packed ? inflateMariadb(reader.rest()) : bytes
    const [at, last] = facts.packed ? [0, plain.length] : [reader.pos, end]
    const before =
      facts.kind === 'insert' ? undefined : present[0] === undefined ? 'full' : ('key' as const)
    const partial = header.type === eventType.partialUpdateRows
    const job: RowsJob = {
      layout,
      bytes: plain,
      at,
      end: last,
      present,
      partial,
      rows: 0,
      rowsMax: 0,
    }
    const flags = bytes.readUInt16LE(start + idSize)
    const cascades =
      facts.kind !== 'insert' && (flags & noForeignKeysFlag) === 0 && !this.#logsCascades(event)
    const run = { kind: facts.kind, relation: table.relation(before), cascades }
    this.#takeRows(this.#begin(event), job, run)
  }

  #logsCascades({ format }: RawEvent): boolean {
    if (this.#options.nativeForeignKeys) return false
    const known = this.#cascades
    if (known?.version === format.serverVersion) return known.logged
    const logged = parseFlavor(format.serverVersion).cascadesLogged
    this.#cascades = { version: format.serverVersion, logged }
    return logged
  }

  #takeRows(
    open: Open,
    job: RowsJob,
    { kind, relation, cascades }: Pick<Run, 'kind' | 'relation' | 'cascades'>,
  ): void {
    const need = relation.columns.length * 2 * job.present.length
    const bytes = job.bytes as Buffer
    const { batchRowsMax, batchBytesMax } = this.#options
    for (;;) {
      const run = this.#run
      const same = run?.kind === kind && run.relation === relation && run.cascades === cascades
      if (!same || run?.bytes !== bytes) {
        this.#endRun()
        if (this.#room.cells.length - this.#room.used < need) this.#makeRoom(need)
        this.#run = { kind, relation, cascades, bytes, first: this.#room.used, rows: 0 }
      }
      const rowsBefore = job.rows
      job.rowsMax = rowsBefore + batchRowsMax - open.rows
      const from = job.at
      const state = takeRows(job, this.#room)
      const rows = job.rows - rowsBefore
      if (this.#run) this.#run.rows += rows
      open.rows += rows
      open.sizeBytes += job.at - from
      if (state === 'broken') {
        throw new Fault('protocol', `read rows of ${relation.name.join('.')}: an image is too long`)
      }
      if (this.#room.cells.length - this.#room.used < need) {
        this.#endRun()
        this.#makeRoom(need)
      }
      if (open.rows >= batchRowsMax || open.sizeBytes >= batchBytesMax) this.#cut(open)
      if (state === 'done') return
    }
  }

  #makeRoom(need: number): void {
    this.#room = { cells: new Int32Array(Math.max(roomCells, need)), used: 0 }
  }

  #endRun(): void {
    const run = this.#run
    this.#run = undefined
    if (!run || run.rows === 0 || !this.#open) return
    const { kind, relation, cascades, bytes, rows, first } = run
    const cells = this.#room.cells.subarray(first, this.#room.used)
    this.#open.changes.push({ kind, relation, rows, cascades, bytes, cells })
  }

  /** Events within have no checksums; all of them end, for whoever resumes, where the payload does. */
  async *#payload(event: RawEvent): Steps {
    for await (const inner of unpackEvents(event)) {
      const steps = this.take(inner)
      if (steps) yield* steps
      this.endBlock(0)
      yield
    }
  }

  #query(event: RawEvent): Steps | undefined {
    const { header, bytes, start, end } = event
    const query = decodeQuery(bytes.subarray(start, end), header.type)
    if (this.#skipping || isBegin(query.sql)) return this.#end(event)
    if (/^\s*xa\s/i.test(query.sql.subarray(0, 16).toString('latin1'))) {
      return this.#xaStatement(event, query.sql.toString('latin1'))
    }
    const database = query.database.toString('utf8')
    const kind = judgeStatement(query.sql, database, this.#options.selection)
    const text = () => query.sql.subarray(0, 120).toString('utf8').replaceAll(/\s+/g, ' ')
    if (kind === 'rows') throw statementRows(text())
    if (kind === 'rollback-to' && this.#open && this.#open.rows > 0) {
      throw new Fault('unsupported', `read changes: the log takes changes back: ${text()}`, {
        hint: 'Transactions that change tables of several storage engines cannot be followed.',
      })
    }
    if (kind === 'ddl') {
      const { tables } = this.#options
      const names = namesIn(query.sql)
      tables.changed(event.place, mayRenameColumns(query.sql), (table) =>
        names.has(table.toLowerCase()),
      )
      this.#endRun()
      this.#begin(event).changes.push(this.#statement(event, query, database))
    }
    this.#end(event, isRollback(query.sql))
    return undefined
  }

  #statement(event: RawEvent, query: ReturnType<typeof decodeQuery>, database: string): Statement {
    const { family, collations } = this.#options
    const { assignments } = statementSettings(event.header, query, family, collations)
    const settings = Object.fromEntries(
      assignments.map((one) => {
        const at = one.indexOf(' = ')
        return [one.slice(0, at), one.slice(at + 3)]
      }),
    )
    return { kind: 'statement', sql: query.sql.toString('utf8'), database, settings }
  }

  #loadStatement(event: RawEvent): undefined {
    const reader = new Reader(event.bytes.subarray(event.start, event.end), 'load query event')
    reader.skip(8)
    const databaseSize = reader.u8()
    reader.skip(2)
    const statusSize = reader.u16le()
    // File number, start and end of the file's name, what to do with duplicates.
    reader.skip(13 + statusSize)
    const database = reader.text(databaseSize)
    reader.skip(1)
    const sql = reader.rest()
    const { selection } = this.#options
    if (!this.#skipping && judgeStatement(sql, database, selection) !== 'none') {
      throw statementRows(sql.subarray(0, 120).toString('utf8'))
    }
    return undefined
  }

  #xaStatement(event: RawEvent, sql: string): Steps | undefined {
    const xa = parseXa(sql)
    if (xa?.verb === 'start') this.#xa.begin(this.#groupStart)
    if (xa?.verb === 'commit') return this.#commitPrepared(event, xa.xid, this.#xa.release(xa.xid))
    if (xa?.verb === 'rollback') {
      this.#xa.take(event.place)
      this.#xa.release(xa.xid)
    }
    this.#end(event)
    return undefined
  }

  /** The end of the first phase, or of the only one. */
  #prepare(event: RawEvent): Steps | undefined {
    if (this.#skipping) return this.#end(event)
    const { onePhase, xid } = decodeXaPrepare(event.bytes.subarray(event.start, event.end))
    const prepared = this.#xa.take(event.place)
    if (onePhase) return this.#commitPrepared(event, xid, prepared)
    if (prepared) this.#xa.keep(xid, prepared)
    this.#end(event)
    return undefined
  }

  async *#commitPrepared(event: RawEvent, xid: string, prepared: Prepared | undefined): Steps {
    this.#begin(event)
    for await (const one of prepared?.events ?? this.#options.reread(xid, prepared)) {
      const { type } = one.header
      const steps = type === eventType.tableMap || isRows(type) ? this.#rowsOrMap(one) : undefined
      if (steps) yield* steps
      yield
    }
    this.#end(event)
  }
}

async function* oneStep(waiting: Promise<void>): Steps {
  await waiting
  yield
}

type RowEventFacts = {
  readonly kind: RowRun['kind']
  /** A field of a length that it tells itself follows the fixed part. */
  readonly extra: boolean
  /** The rows are compressed. */
  readonly packed: boolean
}

const kinds = ['insert', 'update', 'delete'] as const
const rowEvents: ReadonlyMap<number, RowEventFacts> = new Map([
  ...kinds.map((kind, index): [number, RowEventFacts] => [
    23 + index,
    { kind, extra: false, packed: false },
  ]),
  ...kinds.map((kind, index): [number, RowEventFacts] => [
    30 + index,
    { kind, extra: true, packed: false },
  ]),
  ...kinds.map((kind, index): [number, RowEventFacts] => [
    166 + index,
    { kind, extra: false, packed: true },
  ]),
  ...kinds.map((kind, index): [number, RowEventFacts] => [
    169 + index,
    { kind, extra: true, packed: true },
  ]),
  [eventType.partialUpdateRows, { kind: 'update', extra: true, packed: false }],
])

/** Which columns an image has: undefined for all of them. */
function readPresent(reader: Reader, columns: number): Uint8Array | undefined {
  const bits = reader.view((columns + 7) >> 3)
  const present = new Uint8Array(columns)
  let count = 0
  for (let index = 0; index < columns; index++) {
    const bit = ((bits[index >> 3] ?? 0) >> (index & 7)) & 1
    present[index] = bit
    count += bit
  }
  return count === columns ? undefined : present
}

/** MariaDB says in a flag of its GTID event what MySQL says by XA START. https://mariadb.com/kb/en/gtid_event/ */
function opensPrepared(type: number, body: Buffer): boolean {
  return type === eventType.mariadbGtid && ((body[12] ?? 0) & 0x40) !== 0
}

const begin = Buffer.from('BEGIN')

function isBegin(sql: Buffer): boolean {
  return sql.equals(begin)
}

function isRollback(sql: Buffer): boolean {
  return sql.length < 64 && /^\s*rollback\s*$/i.test(sql.toString('latin1'))
}

/** Every word of a statement that could be a name, in small letters. */
function namesIn(sql: Buffer): ReadonlySet<string> {
  const words = sql.toString('utf8').match(/`(?:[^`]|``)+`|"(?:[^"]|"")+"|[\p{L}\p{N}_$]+/gu) ?? []
  return new Set(
    words.map((word) => {
      const quote = word[0] === '`' || word[0] === '"' ? word[0] : undefined
      const bare = quote ? word.slice(1, -1).replaceAll(quote + quote, quote) : word
      return bare.toLowerCase()
    }),
  )
}

function statementRows(text: string): Fault {
  return new Fault('unsupported', `read changes: the log has a statement, not its rows: ${text}`, {
    hint: 'Set binlog_format = ROW on the source, let all sessions reconnect, and copy the data anew.',
  })
}
