import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import { retry } from '#base/retry'
import { eachLimit, tasks } from '#base/tasks'
import type { BaseReader } from '#engines'
import { loadRows } from './catalog.ts'
import { complain } from './complain.ts'
import { adaptForeignKeys, splitTable } from './ddl.ts'
import { type Flavor, parseFlavor } from './flavor.ts'
import { insertRows } from './insert.ts'
import {
  catalogPath,
  fromText,
  readCatalogLines,
  type StoredFile,
  type StoredObject,
  type StoredTable,
} from './layout.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import {
  createDatabase,
  createView,
  keepHistory,
  loadSettings,
  programSettings,
  setSequence,
  standIn,
} from './script.ts'
import { quoteName, quoteNames } from './sql.ts'
import type { Selection } from './targets.ts'

/** Below that a table's indexes cost less with the rows than by themselves. */
const deferIndexesFromBytes = 1024 * 1024
/** Deadlocks and lock waits of parallel loads into one table pass. */
const loading = { triesMax: 5, firstDelayMs: 100, delayMaxMs: 2_000 }

export type LoadOptions = {
  readonly endpoint: Endpoint
  readonly files: BaseReader
  readonly selection: Selection
  readonly parallel: number
  readonly unlogged: boolean
  readonly signal: AbortSignal
  readonly progress: Progress
  readonly log: Log
}

type Job = { readonly table: StoredTable; readonly file: StoredFile }

/** What the server that is filled is, and whether it takes local files. */
type Target = { readonly flavor: Flavor; readonly canLocal: boolean }

/** A base on its way into a server: `begin` makes tables and rows, `finish` what must not run while log is replayed. */
export class Load {
  readonly objects: readonly StoredObject[]
  readonly #options: LoadOptions
  readonly #control: Session
  readonly #target: Target
  rows = 0
  /** What could not be made again, for the operator. */
  readonly refused: string[] = []

  private constructor(
    objects: readonly StoredObject[],
    options: LoadOptions,
    control: Session,
    target: Target,
  ) {
    this.objects = objects
    this.#options = options
    this.#control = control
    this.#target = target
  }

  static async open(options: LoadOptions): Promise<Load> {
    const { files, selection, signal } = options
    const objects: StoredObject[] = []
    for await (const object of readCatalogLines(files.read(catalogPath, { signal }))) {
      if (isSelected(object, selection)) objects.push(object)
    }
    const control = await openLoader(options)
    const row = await control.one('SELECT @@global.local_infile, @@global.version', options)
    const target = { canLocal: row?.[0] === '1', flavor: parseFlavor(row?.[1] ?? '') }
    return new Load(objects, options, control, target)
  }

  get tables(): StoredTable[] {
    return this.objects.filter((object) => object.kind === 'table')
  }

  /** Databases, sequences, tables with their rows and indexes, then foreign keys, views, routines and triggers. */
  async begin(): Promise<void> {
    const { progress } = this.#options
    progress.phase = 'load rows'
    const { tables } = this
    progress.totalBytes = tables.reduce((sum, table) => sum + sizeOf(table), 0)
    progress.doneBytes = 0
    if (!this.#target.canLocal) {
      this.#options.log.warn(
        'the target has local_infile off: rows go in by INSERT, which is slower',
      )
    }
    for (const object of this.objects) {
      if (object.kind === 'database') await this.#run(createDatabase(object.create))
      if (object.kind === 'sequence') await this.#sequence(object)
    }
    await this.#rows(tables)
    progress.phase = 'make foreign keys and programs'
    for (const table of tables) await this.#foreignKeys(table)
    await this.#views()
    await this.#programs((object) => object.program !== 'event')
  }

  /** Events, which would run while the log is replayed. */
  async finish(): Promise<void> {
    await this.#programs((object) => object.program === 'event')
  }

  async #rows(tables: readonly StoredTable[]): Promise<void> {
    const { parallel, signal } = this.#options
    const left = new Map<StoredTable, number>()
    const sorted = tables.toSorted((a, b) => sizeOf(b) - sizeOf(a))
    await eachLimit(sorted, parallel, signal, async (table, inner) => {
      await using session = await openLoader({ ...this.#options, signal: inner })
      await this.#makeTable(session, table)
      left.set(table, table.files.length)
      if (table.files.length === 0) await this.#indexes(session, table)
    })
    const jobs = sorted.flatMap((table) => table.files.map((file) => ({ table, file })))
    await tasks(signal, async (t) => {
      const width = Math.min(parallel, Math.max(1, jobs.length))
      const workers = Array.from({ length: width }, () =>
        t.run((inner) => this.#work(jobs, left, inner)),
      )
      await Promise.all(workers)
    })
  }

  async #work(jobs: Job[], left: Map<StoredTable, number>, signal: AbortSignal): Promise<void> {
    let session = await openLoader({ ...this.#options, signal })
    try {
      for (let job = jobs.shift(); job; job = jobs.shift()) {
        const { table, file } = job
        await retry(loading, signal, async () => {
          if (!session.alive) session = await openLoader({ ...this.#options, signal })
          await this.#file(session, table, file, signal)
        })
        const rest = (left.get(table) ?? 1) - 1
        left.set(table, rest)
        if (rest === 0) await this.#indexes(session, table)
      }
    } finally {
      session.destroy()
    }
  }

  async #makeTable(session: Session, table: StoredTable): Promise<void> {
    const { create } = splitTable(table.create, defers(table))
    await session.query(`USE ${quoteName(table.database)}`, this.#options)
    await session.query(create, this.#options)
  }

  async #file(
    session: Session,
    table: StoredTable,
    file: StoredFile,
    signal: AbortSignal,
  ): Promise<void> {
    const { files, progress } = this.#options
    progress.current = `${table.database}.${table.name}`
    if (table.versioned) await session.query(keepHistory, { signal })
    const content = counted(files.read(file.path, { signal }), progress)
    const rows = this.#target.canLocal
      ? await this.#local(session, table, { path: file.path, content }, signal)
      : await this.#insert(session, table, content, signal)
    if (rows !== file.rows) {
      throw new Fault(
        'corrupt',
        `load ${quoteNames(table.database, table.name)}: ${rows} rows of ${file.path} went in, the base has ${file.rows}`,
      )
    }
    this.rows += rows
  }

  async #local(
    session: Session,
    table: StoredTable,
    { path, content }: { readonly path: string; readonly content: AsyncIterable<Buffer> },
    signal: AbortSignal,
  ): Promise<number> {
    const sql = loadRows(table, table.columns, path)
    const done = await session.load(sql, content, { signal })
    if (done.warnings > 0) await complain(session, table, done.warnings, signal)
    return done.affectedRows
  }

  async #insert(
    session: Session,
    table: StoredTable,
    content: AsyncIterable<Buffer>,
    signal: AbortSignal,
  ): Promise<number> {
    try {
      await session.query('START TRANSACTION', { signal })
      const done = await insertRows(session, table, content, signal)
      await session.query('COMMIT', { signal })
      return done.affectedRows
    } catch (error) {
      // The next transaction's beginning would commit what there is of this one.
      session.destroy()
      throw error
    }
  }

  async #indexes(session: Session, table: StoredTable): Promise<void> {
    const at = quoteNames(table.database, table.name)
    for (const group of splitTable(table.create, defers(table)).indexes) {
      await session.query(`ALTER TABLE ${at} ${group.join(', ')}`, this.#options)
    }
  }

  async #foreignKeys(table: StoredTable): Promise<void> {
    const { foreignKeys } = splitTable(table.create, false)
    if (foreignKeys.length === 0) return
    await this.#run(`USE ${quoteName(table.database)}`)
    const at = quoteNames(table.database, table.name)
    const alter = `ALTER TABLE ${at} ${foreignKeys.join(', ')}`
    await this.#run(adaptForeignKeys(alter, this.#target.flavor))
  }

  async #sequence(object: Extract<StoredObject, { kind: 'sequence' }>): Promise<void> {
    await this.#run(`USE ${quoteName(object.database)}`)
    await this.#run(object.create)
    await this.#run(setSequence(object))
  }

  /** All stand-ins first: a view may use any other. */
  async #views(): Promise<void> {
    const views = this.objects.filter((object) => object.kind === 'view')
    for (const view of views) await this.#run(standIn(view))
    for (const view of views) {
      await this.#run(`USE ${quoteName(view.database)}`)
      await this.#run(
        `SET SESSION character_set_client = ${view.charset}, collation_connection = ${view.collation}`,
      )
      const at = quoteNames(view.database, view.name)
      if (!(await this.#tolerate(`view ${at}`, createView(view))))
        await this.#run(`DROP VIEW ${at}`)
    }
    await this.#settle()
  }

  /** A view or program that worked no more on the source cannot be made again: it is told of, and the data comes back. */
  async #tolerate(what: string, sql: Buffer): Promise<boolean> {
    try {
      await this.#run(sql)
      return true
    } catch (error) {
      if (!isFault(error, 'engine', 'denied')) throw error
      this.refused.push(`The server refused the ${what}: ${error.message}`)
      return false
    }
  }

  async #programs(
    accept: (object: Extract<StoredObject, { kind: 'program' }>) => boolean,
  ): Promise<void> {
    const programs = this.objects.filter((object) => object.kind === 'program').filter(accept)
    // Routines before the triggers and events that call them; the catalog has them in this order.
    for (const program of programs) {
      await this.#run(`USE ${quoteName(program.database)}`)
      for (const statement of programSettings(program)) await this.#run(statement)
      const at = quoteNames(program.database, program.name)
      await this.#tolerate(`${program.program} ${at}`, fromText(program.create))
      await this.#settle()
    }
  }

  async #settle(): Promise<void> {
    for (const statement of loadSettings) await this.#run(statement)
  }

  async #run(sql: string | Buffer): Promise<void> {
    await this.#control.query(sql, this.#options)
  }

  async close(): Promise<void> {
    await this.#control[Symbol.asyncDispose]()
  }
}

function isSelected(object: StoredObject, selection: Selection): boolean {
  switch (object.kind) {
    case 'database':
      return selection.touches(object.name)
    case 'table':
    case 'sequence':
      return selection.accepts(object.database, object.name)
    case 'view':
    case 'program':
      return selection.everything
  }
}

function sizeOf(table: StoredTable): number {
  return table.files.reduce((sum, file) => sum + file.sizeBytes, 0)
}

function defers(table: StoredTable): boolean {
  return /^innodb$/i.test(table.engine) && sizeOf(table) >= deferIndexesFromBytes
}

export async function openLoader(
  options: Pick<LoadOptions, 'endpoint' | 'unlogged' | 'signal'>,
): Promise<Session> {
  const { endpoint, signal } = options
  const session = await Session.open(endpoint, { signal })
  const long = 24 * 3600
  for (const statement of loadSettings) await session.query(statement, { signal })
  await session.query(`SET SESSION wait_timeout = ${long}, net_read_timeout = ${long}`, { signal })
  try {
    await session.query('SET SESSION max_error_count = 65535', { signal })
  } catch (error) {
    // MySQL 8 and later ask a right for it: fewer warnings are told then, and those that are not are taken for damage.
    if (!isFault(error, 'denied')) throw error
  }
  if (options.unlogged) await session.query('SET SESSION sql_log_bin = 0', { signal })
  return session
}

async function* counted(
  content: AsyncIterable<Buffer>,
  progress: Progress,
): AsyncGenerator<Buffer, void, void> {
  for await (const bytes of content) {
    progress.doneBytes += bytes.length
    yield bytes
  }
}
