import { existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { assert, Fault, fromSystem } from '#base/faults'
import { makeFolders } from '#base/folders'
import type { Position } from '#change'
import type { ConflictPolicy } from '#change/apply'
import type { Chunk, LoadedChunk } from '#change/copy'
import type { Finding } from '#change/finding'
import type { ObjectName, Phase, SchemaObject, Stage, TableShape } from '#change/schema'
import type { At } from './link.ts'
import type { Choices } from './selection.ts'

const fileName = 'link.db'
const format = 1

/** What a link is, once and for all. */
export type Plan = {
  /** Names the marks on the target. */
  readonly id: string
  /** Both ends, without secrets and logins: the state belongs to this pair. */
  readonly from: string
  readonly to: string
  readonly choices: Choices
  readonly phases: readonly Phase[]
  readonly objects: readonly SchemaObject[]
  readonly tables: readonly TableShape[]
  readonly findings: readonly Finding[]
}

/** A reader of the source, with what its rows are as of. */
export type Run = {
  readonly run: number
  readonly position: Position | undefined
  readonly stamp: string | undefined
  /** It brought chunks that stayed. */
  readonly used: boolean
}

/** What is asked of the changes. */
export type Changing = {
  /** As it was written: `caught-up`, `never`, a time. */
  readonly until: string
  readonly conflicts: ConflictPolicy
}

/** What the copy of a table came to. */
export type TableResult = {
  readonly rows: bigint
  /** As they were carried, retries included. */
  readonly bytes: number
  readonly tookMs: number
}

export type RecordedTable = {
  readonly shape: TableShape
  readonly chunks: readonly Chunk[] | undefined
  /** Its rows are there, and its own objects are made. */
  readonly result: TableResult | undefined
}

/** Whether a directory holds a link's state. */
export function hasState(directory: string): boolean {
  return existsSync(join(directory, fileName))
}

/**
 * The state of one link, in a directory of its own: plan, tables, chunks, runs. Each call is one transaction, synced to the
 * disk where it cannot be found out again. SQLite's own lock, which the system drops when a process dies, makes this
 * process the only one: else `locked`.
 */
export async function openState(directory: string): Promise<LinkStore> {
  const path = join(directory, fileName)
  try {
    await makeFolders(directory, 0o700)
    // Made by us for its mode: statements that make accounts hold hashes of passwords.
    await (await open(path, 'a', 0o600)).close()
  } catch (error) {
    throw fromSystem(error, `open the state directory ${directory}`)
  }
  return new LinkStore(path)
}

const tablesSql = `
  create table if not exists fact (name text primary key, value text not null) strict;
  create table if not exists object
    (seq integer primary key, id text not null unique, stage text not null, made integer not null, owner text, body text not null) strict;
  create index if not exists object_owner on object (owner) where made = 0;
  create table if not exists copied
    (seq integer primary key, shape text not null, planned integer not null, result text) strict;
  create table if not exists chunk
    (copied integer not null, seq integer not null, size_bytes integer not null, range text not null,
     primary key (copied, seq)) strict, without rowid;
  create table if not exists run
    (run integer primary key, position text, stamp text, used integer not null) strict;
  create table if not exists brought
    (copied integer not null, run integer not null, primary key (copied, run)) strict, without rowid`

type Row = Readonly<Record<string, string | number | bigint | null | Uint8Array>>

/** See `openState`. */
export class LinkStore implements Disposable {
  readonly #path: string
  readonly #database: DatabaseSync

  constructor(path: string) {
    this.#path = path
    this.#database = this.#classified('open', () => new DatabaseSync(path))
    try {
      this.#classified('open', () => {
        this.#database.exec('pragma locking_mode = exclusive')
        this.#database.exec('pragma journal_mode = wal; pragma synchronous = full')
        this.#database.exec(`begin exclusive; ${tablesSql}; commit`)
      })
      const found = this.#fact('format')
      if (found !== undefined && found !== String(format)) {
        throw new Fault('unsupported', `open ${path}: its format is ${found}, not ${format}`)
      }
    } catch (error) {
      this.#database.close()
      throw error
    }
  }

  /** Where the link stands; undefined when no plan was recorded. */
  get at(): Exclude<At, 'new'> | undefined {
    return this.#fact('at') as Exclude<At, 'new'> | undefined
  }

  /** The plan, as it was recorded. */
  plan(): Plan | undefined {
    const text = this.#fact('plan')
    if (text === undefined) return undefined
    const tables = this.tables().map(({ shape }) => shape)
    return {
      ...(JSON.parse(text) as Omit<Plan, 'objects' | 'tables'>),
      objects: this.objects(),
      tables,
    }
  }

  /** Records a plan where none is. */
  record({ objects, tables, ...plan }: Plan, changing?: Changing): void {
    this.#write('record the plan', () => {
      assert(this.#fact('plan') === undefined, 'a link is planned once')
      this.#setFact('format', String(format))
      this.#setFact('plan', JSON.stringify(plan))
      this.#setFact('at', 'planned')
      if (changing) this.#setFact('changing', JSON.stringify(changing))
      this.#insertObjects(objects)
      const insert = this.#database.prepare('insert into copied values (?, ?, 0, null)')
      for (const [index, shape] of tables.entries()) insert.run(index, JSON.stringify(shape))
    })
  }

  stand(at: Exclude<At, 'new'>): void {
    this.#write(`record that it is ${at}`, () => this.#setFact('at', at))
  }

  /** Objects that are not known to be made yet, of one stage or all. */
  objects(stage?: Stage): SchemaObject[] {
    const rows = this.#read(
      'select body from object where made = 0 and stage = coalesce(?, stage) order by seq',
      stage ?? null,
    )
    return rows.map(({ body }) => JSON.parse(String(body)) as SchemaObject)
  }

  /** Objects of stage `table` that belong to one table and are not known to be made. */
  ownObjects(table: ObjectName): SchemaObject[] {
    const rows = this.#read(
      "select body from object where made = 0 and stage = 'table' and owner = ? order by seq",
      JSON.stringify(table),
    )
    return rows.map(({ body }) => JSON.parse(String(body)) as SchemaObject)
  }

  /** Whether an object is in the plan and not known to be made. */
  isUnmade(id: string): boolean {
    return this.#read('select 1 from object where id = ? and made = 0', id).length > 0
  }

  /** How many objects are made, by kind. */
  madeKinds(): Readonly<Record<string, number>> {
    const rows = this.#read(
      "select body ->> '$.kind' as kind, count(*) as count from object where made = 1 group by 1 order by 1",
    )
    return Object.fromEntries(rows.map(({ kind, count }) => [String(kind), Number(count)]))
  }

  made(ids: readonly string[]): void {
    if (ids.length === 0) return
    this.#note('record what was made', () => {
      const update = this.#database.prepare('update object set made = 1 where id = ?')
      for (const id of ids) update.run(id)
    })
  }

  /** Takes later readings of objects in the place of those that are not made yet. */
  replaceUnmade(objects: readonly SchemaObject[]): void {
    this.#write('record the objects', () => {
      this.#database.exec("delete from object where made = 0 and stage <> 'rows'")
      const known = new Set(this.#read('select id from object').map(({ id }) => String(id)))
      this.#insertObjects(objects.filter(({ id, stage }) => stage !== 'rows' && !known.has(id)))
    })
  }

  tables(): RecordedTable[] {
    const chunks = new Map<number, Chunk[]>()
    for (const row of this.#read('select * from chunk order by copied, seq')) {
      const table = Number(row['copied'])
      const list = chunks.get(table) ?? []
      chunks.set(table, list)
      list.push({
        table,
        index: Number(row['seq']),
        sizeBytes: Number(row['size_bytes']),
        range: String(row['range']),
      })
    }
    return this.#read('select * from copied order by seq').map((row) => ({
      shape: JSON.parse(String(row['shape'])) as TableShape,
      chunks: row['planned'] ? (chunks.get(Number(row['seq'])) ?? []) : undefined,
      result: parseResult(textOf(row['result'])),
    }))
  }

  /** Records the chunks of tables, before any of them is read. */
  planTables(
    plans: readonly { readonly index: number; readonly chunks: readonly Chunk[] }[],
  ): void {
    this.#write('record the chunks', () => {
      const insert = this.#database.prepare('insert into chunk values (?, ?, ?, ?)')
      for (const { index, chunks } of plans) {
        this.#database.prepare('update copied set planned = 1 where seq = ?').run(index)
        this.#database.prepare('delete from chunk where copied = ?').run(index)
        for (const chunk of chunks)
          insert.run(index, chunk.index, Math.round(chunk.sizeBytes), chunk.range)
      }
    })
  }

  /** The table's copy begins anew. */
  forgetPlan(index: number): void {
    this.#write('forget the chunks', () => {
      this.#database.prepare('delete from chunk where copied = ?').run(index)
      this.#database
        .prepare('update copied set planned = 0, result = null where seq = ?')
        .run(index)
    })
  }

  finishTable(index: number, { rows, bytes, tookMs }: TableResult): void {
    const text = JSON.stringify({ rows: String(rows), bytes, tookMs })
    this.#note('record a table', () =>
      this.#database.prepare('update copied set result = ? where seq = ?').run(text, index),
    )
  }

  /** Numbers a reader of the source, before it reads. */
  beginRun(position: Position | undefined, stamp: string | undefined): Run {
    const run = this.runs().length
    const text = position === undefined ? null : JSON.stringify(position)
    this.#write('record a run', () =>
      this.#database.prepare('insert into run values (?, ?, ?, 0)').run(run, text, stamp ?? null),
    )
    return { run, position, stamp, used: false }
  }

  runs(): Run[] {
    return this.#read('select * from run order by run').map((row) => ({
      run: Number(row['run']),
      position: parsePosition(textOf(row['position'])),
      stamp: textOf(row['stamp']),
      used: row['used'] === 1,
    }))
  }

  /** Tells which runs the chunks on the target are of: all of them, when they are all there. */
  useRuns(chunks: readonly Pick<LoadedChunk, 'table' | 'run'>[]): void {
    this.#write('record the runs', () => {
      this.#database.exec('update run set used = 0; delete from brought')
      const use = this.#database.prepare('update run set used = 1 where run = ?')
      const bring = this.#database.prepare('insert or ignore into brought values (?, ?)')
      for (const { table, run } of chunks) {
        use.run(run)
        bring.run(table, run)
      }
    })
  }

  /** The runs that brought the rows of each table, by the tables' indexes. */
  runsOfTables(): ReadonlyMap<number, readonly number[]> {
    const rows = this.#read('select copied, run from brought order by copied, run')
    const pairs = rows.map((row) => [Number(row['copied']), Number(row['run'])] as const)
    const byTable = Map.groupBy(pairs, ([table]) => table)
    return new Map([...byTable].map(([table, list]) => [table, list.map(([, run]) => run)]))
  }

  /** What was asked of the changes last; on a resume it may be another than before. */
  changing(): Changing | undefined {
    const text = this.#fact('changing')
    return text === undefined ? undefined : (JSON.parse(text) as Changing)
  }

  setChanging(changing: Changing): void {
    this.#write('record what is asked', () => this.#setFact('changing', JSON.stringify(changing)))
  }

  /** Findings that the copy itself made. */
  addFinding(finding: Finding): void {
    const all = this.laterFindings()
    if (all.some((one) => one.said === finding.said)) return
    this.#write('record a finding', () =>
      this.#setFact('findings', JSON.stringify([...all, finding])),
    )
  }

  laterFindings(): Finding[] {
    return JSON.parse(this.#fact('findings') ?? '[]') as Finding[]
  }

  [Symbol.dispose](): void {
    this.#database.close()
  }

  #insertObjects(objects: readonly SchemaObject[]): void {
    const insert = this.#database.prepare(
      'insert into object (id, stage, made, owner, body) values (?, ?, 0, ?, ?)',
    )
    for (const object of objects) {
      const owner = object.table === undefined ? null : JSON.stringify(object.table)
      insert.run(object.id, object.stage, owner, JSON.stringify(object))
    }
  }

  #fact(name: string): string | undefined {
    const [row] = this.#read('select value from fact where name = ?', name)
    return row === undefined ? undefined : String(row['value'])
  }

  #setFact(name: string, value: string): void {
    this.#database.prepare('insert or replace into fact values (?, ?)').run(name, value)
  }

  #read(sql: string, ...values: (string | null)[]): Row[] {
    return this.#classified('read', () => this.#database.prepare(sql).all(...values))
  }

  #write(doing: string, work: () => void): void {
    this.#classified(doing, () => {
      this.#database.exec('begin immediate')
      try {
        work()
        this.#database.exec('commit')
      } catch (error) {
        // SQLite has rolled back by itself where the disk is full.
        if (this.#database.isTransaction) this.#database.exec('rollback')
        throw error
      }
    })
  }

  /**
   * What may be lost in a power cut, since it is found out and noted again: not synced by itself, but with the next write.
   * Tens of thousands of small tables would else wait for the disk, each twice.
   */
  #note(doing: string, work: () => void): void {
    this.#database.exec('pragma synchronous = normal')
    try {
      this.#write(doing, work)
    } finally {
      this.#database.exec('pragma synchronous = full')
    }
  }

  #classified<T>(doing: string, work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw fromSqlite(error, `${doing}: ${this.#path}`)
    }
  }
}

function textOf(cell: Row[string] | undefined): string | undefined {
  return typeof cell === 'string' ? cell : undefined
}

function parsePosition(text: string | undefined): Position | undefined {
  return text === undefined ? undefined : (JSON.parse(text) as Position)
}

function parseResult(text: string | undefined): TableResult | undefined {
  if (text === undefined) return undefined
  const { rows, bytes, tookMs } = JSON.parse(text) as {
    rows: string
    bytes: number
    tookMs: number
  }
  return { rows: BigInt(rows), bytes, tookMs }
}

/** Primary result codes: https://www.sqlite.org/rescode.html */
function fromSqlite(error: unknown, doing: string): unknown {
  if (!(error instanceof Error) || !('errcode' in error)) return error
  switch (Number(error.errcode) & 0xff) {
    case 5:
    case 6:
      return new Fault('locked', `${doing}: another process is using it`, {
        hint: 'Stop that process, or give this one another --state directory.',
        recovery: 'stop',
        cause: error,
      })
    case 11:
    case 26:
      return new Fault('corrupt', `${doing}: it is damaged`, {
        hint: 'Begin anew: remove the state directory, and what was made on the target.',
        cause: error,
      })
    case 13:
      return new Fault('full', `${doing}: the disk is full`, { cause: error })
    default:
      return new Fault('io', `${doing}: ${error.message}`, { cause: error })
  }
}
