import { Fault, isFault } from '#base/faults'
import { tasks } from '#base/tasks'
import { systemTime } from '#base/time'
import type { BaseFacts, BaseOptions, BaseSink } from '#engines'
import { type Catalog, hasRows, isTransactional, selectRows, type Table } from './catalog.ts'
import { type Chunk, chunkTargetBytes, conditionOf, planChunks } from './chunks.ts'
import { digestedCount, formatDigest, inDigestOrder } from './digests.ts'
import { readStamp } from './dump.ts'
import type { Flavor } from './flavor.ts'
import { chooseHistory } from './history.ts'
import {
  catalogPath,
  chunkPath,
  dataPath,
  fileEntry,
  folderEntry,
  layoutName,
  loadPath,
  pathName,
  type StoredFile,
  type StoredObject,
  toText,
  usersPath,
} from './layout.ts'
import { comparePartitions, readPartitions } from './partitions.ts'
import { beginning, fileNumber, formatPlace } from './position.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { serverErrorNumber } from './protocol/server-error.ts'
import { Session } from './protocol/session.ts'
import { RowKernel } from './row-kernel.ts'
import { RowText } from './rows.kernel.ts'
import { writeScript } from './script.ts'
import { readVariables } from './server.ts'
import { openSnapshot, type Snapshot, tableWaitSeconds } from './snapshot.ts'
import { quoteNames } from './sql.ts'
import { readUsers } from './users.ts'

export type Source = {
  readonly endpoint: Endpoint
  readonly flavor: Flavor
  readonly history: string
}

/** Unknown table, unknown column, table changed since the transaction began, sort aborted by such a change. */
const changedNumbers = new Set([1146, 1054, 1412, 1105, 1932])
const sessionsMax = 64

export type LogicalOptions = BaseOptions & {
  readonly chunkBytes?: number | undefined
  /** Let no table be kept from schema changes until it is copied. */
  readonly pinless?: boolean | undefined
}

type Job = { readonly table: Table; readonly chunk: Chunk }

/** Takes a logical base: all rows as of one place in the binary log, and the statements that make the rest. */
export async function takeLogicalBase(
  source: Source,
  sink: BaseSink,
  options: LogicalOptions,
): Promise<BaseFacts> {
  const { signal, progress, log } = options
  const startedUs = BigInt(systemTime.now()) * 1000n
  const parallel = Math.min(sessionsMax, Math.max(1, options.parallel))
  await using snapshot = await openSnapshot(source.endpoint, source.flavor, {
    parallel,
    signal,
    log,
    pins: !options.pinless,
  })
  const { end, catalog } = snapshot
  const stamp = end && (await readStamp(source.endpoint, source.flavor, end.name, signal))
  const history = await chooseHistory(source, options.known, signal)
  const at = end
    ? formatPlace({ file: fileNumber(end.name), offset: end.offset, stamp })
    : beginning
  progress.phase = 'copy rows'
  const sized = catalog.tables.filter(hasRows)
  progress.totalBytes = sized.reduce((sum, table) => sum + table.sizeBytes, 0)
  const copy = new Copy(source, snapshot, sink, options)
  await copy.run()
  await snapshot.check()
  await checkPartitions(source, snapshot, signal)
  const objects = describe(catalog, copy.files, source.flavor)
  const entry = fileEntry(snapshot.timeUs)
  const lines = objects.map((object) => Buffer.from(`${JSON.stringify(object)}\n`))
  await sink.file(catalogPath, entry, each(lines))
  await sink.file(loadPath, entry, each(writeScript(objects)))
  const users = await copy.users()
  if (users) await sink.file(usersPath, entry, each([users]))
  const position = { history, at }
  return {
    engine: 'mysql',
    flavor: source.flavor.family,
    version: source.flavor.version,
    form: 'logical',
    first: position,
    consistent: position,
    startedUs,
    consistentUs: snapshot.timeUs,
    sizeBytes: BigInt(copy.doneBytes),
    details: {
      layout: layoutName,
      'native-foreign-keys': await readForeignKeys(source, signal),
      gtids: snapshot.gtids,
      'binlog-file': end?.name ?? '',
      'binlog-position': String(end?.offset ?? ''),
      'blocked-ms': snapshot.blockedMs.toFixed(1),
      tables: String(catalog.tables.length),
      rows: String(copy.doneRows),
    },
  }
}

/** What `SHOW CREATE TABLE` does not tell: see `readPartitions`. */
async function checkPartitions(
  source: Source,
  snapshot: Snapshot,
  signal: AbortSignal,
): Promise<void> {
  if (!snapshot.partitions || snapshot.partitions.size === 0) return
  await using session = await Session.open(source.endpoint, { signal })
  await session.query(`SET SESSION lock_wait_timeout = ${tableWaitSeconds}`, { signal })
  comparePartitions(snapshot.partitions, await readPartitions(session, source.flavor, signal))
}

async function* each(parts: Iterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  yield* parts
}

class Copy {
  readonly files = new Map<Table, StoredFile[]>()
  doneBytes = 0
  doneRows = 0
  readonly #source: Source
  readonly #snapshot: Snapshot
  readonly #sink: BaseSink
  readonly #options: LogicalOptions
  readonly #ready: Job[] = []
  readonly #open = new Map<Table, number>()
  readonly #startMs = systemTime.monotonicMs()
  #tables: Table[] = []
  /** Those that were kept as they are and are not copied yet. */
  #pinned = new Set<Table>()

  constructor(source: Source, snapshot: Snapshot, sink: BaseSink, options: LogicalOptions) {
    this.#source = source
    this.#snapshot = snapshot
    this.#sink = sink
    this.#options = options
  }

  async run(): Promise<void> {
    const { catalog, sessions, frozen } = this.#snapshot
    const tables = catalog.tables.filter(hasRows)
    await this.#makeFolders(catalog)
    // What is kept as it is comes first; then the largest: no session is left alone with it at the end.
    this.#pinned = new Set(this.#snapshot.pinned.tables)
    const others = tables
      .filter((table) => isTransactional(table.engine) && !this.#pinned.has(table))
      .sort((a, b) => b.sizeBytes - a.sizeBytes)
    this.#tables = [...this.#pinned, ...others]
    const solid = tables.filter((table) => !isTransactional(table.engine))
    await using control = await Session.open(this.#source.endpoint, this.#options)
    const wait = `SET SESSION lock_wait_timeout = ${tableWaitSeconds}`
    await control.query(wait, this.#options)
    await tasks(this.#options.signal, async (t) => {
      const work = sessions.map((session) =>
        t.run((signal) => this.#work({ session, kernel: new RowKernel() }, control, signal)),
      )
      if (frozen) work.push(t.run((signal) => this.#copyFrozen(frozen, solid, signal)))
      await Promise.all(work)
    })
  }

  /** Accounts and grants, read while everything else is at hand. */
  async users(): Promise<Buffer | undefined> {
    const { signal } = this.#options
    await using session = await Session.open(this.#source.endpoint, { signal })
    return await readUsers(session, this.#source.flavor, signal)
  }

  async #makeFolders(catalog: Catalog): Promise<void> {
    const entry = folderEntry(this.#snapshot.timeUs)
    await this.#sink.node('data', entry)
    for (const { name } of catalog.databases) await this.#sink.node(`data/${pathName(name)}`, entry)
    for (const table of catalog.tables.filter(hasRows))
      await this.#sink.node(dataPath(table), entry)
  }

  async #copyFrozen(
    session: Session,
    tables: readonly Table[],
    signal: AbortSignal,
  ): Promise<void> {
    const reader = { session, kernel: new RowKernel() }
    for (const table of tables) {
      const chunk = { index: 0, from: undefined, to: undefined }
      await this.#copy(reader, { table, chunk }, signal)
    }
    await this.#snapshot.release()
  }

  async #work(reader: RowReader, control: Session, signal: AbortSignal): Promise<void> {
    const { session } = reader
    let pinned = true
    for (;;) {
      const job = this.#ready.shift() ?? (await this.#plan(session, signal))
      if (!job) return this.#letGo(session, signal)
      // When there is no more to begin of what is pinned, the others hold what they copy of it.
      if (pinned && !this.#pinned.has(job.table)) await this.#letGo(session, signal)
      await this.#copy(reader, job, signal)
      pinned &&= this.#keeps(job.table)
      if (!pinned) await this.#letGo(session, signal)
      const left = (this.#open.get(job.table) ?? 1) - 1
      this.#open.set(job.table, left)
      if (left === 0) {
        this.#pinned.delete(job.table)
        await this.#checkUnchanged(control, job.table, signal)
      }
    }
  }

  /** Cuts the next table; its other chunks wait for whoever is free. */
  async #plan(session: Session, signal: AbortSignal): Promise<Job | undefined> {
    const table = this.#tables.shift()
    if (!table) return undefined
    const targetBytes = this.#options.chunkBytes ?? chunkTargetBytes
    const chunks = await this.#guarded(table, () =>
      planChunks(session, table, { targetBytes, signal }),
    )
    this.#open.set(table, chunks.length)
    const jobs = chunks.map((chunk) => ({ table, chunk }))
    this.#ready.push(...jobs.slice(1))
    return jobs[0]
  }

  async #copy(reader: RowReader, job: Job, signal: AbortSignal): Promise<void> {
    const { table, chunk } = job
    const path = chunkPath(table, chunk.index)
    this.#options.progress.current = `${table.database}.${table.name}`
    await this.#guarded(table, async () => {
      const columns = inDigestOrder(table.columns, this.#source.flavor)
      const digested = digestedCount(columns, this.#source.flavor)
      const counted = { rows: 0, bytes: 0, digest: 0n, digested }
      const sql = selectRows({ ...table, columns }, conditionOf(table, chunk))
      const content = this.#throttled(readRows(reader, sql, counted, signal), signal)
      await this.#sink.file(path, fileEntry(this.#snapshot.timeUs), content)
      const list = this.files.get(table) ?? []
      const digest = digested > 0 ? formatDigest(counted.digest) : undefined
      list.push({ path, rows: counted.rows, sizeBytes: counted.bytes, digest })
      this.files.set(table, list)
      this.doneRows += counted.rows
    })
  }

  /** Whether what is pinned beside this table stays so for a little longer. */
  #keeps(table: Table): boolean {
    return this.#pinned.has(table) && systemTime.monotonicMs() < this.#snapshot.pinned.untilMs
  }

  /** Gives up the session's locks on the definitions of tables, so that a waiting ALTER goes on; its view of the data stays. */
  async #letGo(session: Session, signal: AbortSignal): Promise<void> {
    await session.query('ROLLBACK TO SAVEPOINT redoubt', { signal })
  }

  async *#throttled(
    content: AsyncIterable<Buffer>,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, void> {
    const { limitBytesPerSecond } = this.#options
    for await (const bytes of content) {
      this.doneBytes += bytes.length
      if (limitBytesPerSecond) {
        const dueMs = (this.doneBytes / limitBytesPerSecond) * 1000
        const aheadMs = dueMs - (systemTime.monotonicMs() - this.#startMs)
        if (aheadMs > 1) await systemTime.sleep(aheadMs, signal)
      }
      yield bytes
    }
  }

  async #guarded<T>(table: Table, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (!changedNumbers.has(serverErrorNumber(error) ?? 0) || !isFault(error)) throw error
      throw changed(table, error)
    }
  }

  /** A table that was put in this one's place after the snapshot would have been read instead. */
  async #checkUnchanged(control: Session, table: Table, signal: AbortSignal): Promise<void> {
    if (this.#source.flavor.instanceLock) return
    const at = quoteNames(table.database, table.name)
    await this.#guarded(table, async () => {
      await control.query(`SET SESSION sql_mode = ''`, { signal })
      const row = await control.one(`SHOW CREATE TABLE ${at}`, { signal })
      if (withoutCounter(row?.[1] ?? '') !== withoutCounter(table.create)) throw changed(table)
    })
  }
}

function withoutCounter(create: string): string {
  return create.replace(/ AUTO_INCREMENT=\d+/, '')
}

function changed(table: Table, cause?: unknown): Fault {
  const at = quoteNames(table.database, table.name)
  return new Fault('conflict', `copy ${at}: its definition changed meanwhile`, {
    hint: 'Take the base again, at a time without schema changes.',
    recovery: 'retry',
    cause,
  })
}

/** A session and the loop for its rows: no other result may pass through it meanwhile. */
export type RowReader = { readonly session: Session; readonly kernel: RowKernel }

/** What was read; with a digest over the first `digested` cells of each row, when told so. */
type Counted = { rows: number; bytes: number; digest?: bigint; readonly digested?: number }

/** The rows of a statement as lines for LOAD DATA: each buffer lasts only until the next is asked for. */
export async function* readRows(
  { session, kernel }: RowReader,
  sql: string,
  counted: Counted,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, void> {
  using _ = session.guard(signal)
  const text = new RowText(await session.beginRows(sql, { signal }), kernel, counted.digested)
  try {
    while (!text.done) {
      const bytes = await session.raw()
      for (const lines of text.take(bytes)) {
        counted.bytes += lines.length
        yield lines
      }
    }
    counted.rows += text.rows
    counted.digest = text.digest
  } finally {
    // Rows that nobody takes any more would be read as the answer to the next statement.
    if (!text.done) session.destroy()
  }
}

/** Everything in the order in which a restore makes it. */
function describe(
  catalog: Catalog,
  files: ReadonlyMap<Table, StoredFile[]>,
  flavor: Flavor,
): StoredObject[] {
  return [
    ...catalog.databases.map((database) => ({ kind: 'database' as const, ...database })),
    ...catalog.sequences.map((sequence) => ({ kind: 'sequence' as const, ...sequence })),
    ...catalog.tables.map((table) => ({
      kind: 'table' as const,
      database: table.database,
      name: table.name,
      engine: table.engine,
      create: table.create,
      versioned: table.versioned,
      columns: inDigestOrder(table.columns, flavor).map(({ name, load }) => ({ name, load })),
      files: (files.get(table) ?? []).sort((a, b) => (a.path < b.path ? -1 : 1)),
    })),
    ...catalog.views.map((view) => ({
      kind: 'view' as const,
      ...view,
      create: toText(view.create),
    })),
    ...catalog.programs.map(({ kind, create, ...program }) => ({
      kind: 'program' as const,
      program: kind,
      create: toText(create),
      ...program,
      table: undefined,
    })),
  ]
}

/** Who carries out cascades on MySQL 9.6 and later; an empty text before. */
export async function readForeignKeys(source: Source, signal: AbortSignal): Promise<string> {
  await using session = await Session.open(source.endpoint, { signal })
  const name = 'innodb_native_foreign_keys'
  return (await readVariables(session, [name], signal)).get(name) ?? ''
}
