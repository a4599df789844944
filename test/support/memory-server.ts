import assert from 'node:assert/strict'
import { Fault } from '#base/faults'
import type {
  BeginCopy,
  Chunk,
  CopyReader,
  CopyWriter,
  LoadedChunk,
  OpenCopy,
  RowBlock,
} from '#change/copy'
import type { Finding } from '#change/finding'
import type {
  CheckOptions,
  MakeOptions,
  Schema,
  SchemaObject,
  Selection,
  TableShape,
} from '#change/schema'
import type { Mark } from '#change/apply'
import type { LinkEnd } from '#links/migrate'
import { memoryApply, memoryChanges } from './memory-changes.ts'

/** The process that used a server is gone: from here on none of its calls comes through. */
export class Died extends Error {
  override readonly name = 'Died'
}

/** Counts what a process asks of its servers, and lets it die at one of these calls, before or after its effect. */
export class Lifetime {
  calls = 0
  /** For whatever comes in any order. */
  seed = 1
  /** Of this many writes of lanes beside others, one does not meet what another has not committed yet. */
  spurious = 0
  readonly #diesAt: number
  readonly #after: boolean
  #dead = false
  /** Calls, by number, that fail once. */
  readonly failures = new Map<number, Error>()
  /** The same, behind their effect: nobody knows then whether it was done. */
  readonly lateFailures = new Map<number, Error>()

  constructor(diesAt = Number.POSITIVE_INFINITY, after = false) {
    this.#diesAt = diesAt
    this.#after = after
  }

  async call<T>(work: () => T): Promise<T> {
    if (this.#dead) throw new Died('dead')
    this.calls += 1
    const number = this.calls
    const dies = this.calls === this.#diesAt
    if (dies) this.#dead = true
    if (dies && !this.#after) throw new Died(`before call ${this.calls}`)
    const failure = this.failures.get(this.calls)
    if (failure) throw failure
    const result = work()
    // What others do meanwhile comes between.
    await Promise.resolve()
    if (dies) throw new Died(`after call ${number}`)
    const late = this.lateFailures.get(number)
    if (late) throw late
    return result
  }
}

type Row = { readonly key: number; readonly value: string; readonly place: number }

/** What became of one row in a transaction. */
export type RowChange = {
  readonly table: string
  readonly before: Pick<Row, 'key' | 'value'> | undefined
  readonly after: Pick<Row, 'key' | 'value'> | undefined
}

export type LoggedTransaction = { readonly at: string; readonly changes: readonly RowChange[] }

type Write = { readonly table: string; readonly key: number; readonly value?: string | undefined }

export type MemoryTable = {
  readonly name: readonly string[]
  /** Chunks are ranges of the key; else of the places where rows lie. */
  readonly byKey: boolean
  readonly identified: boolean
  rows: Row[]
}

const rowsPerChunk = 3

function positionAt(version: number): string {
  return String(version).padStart(6, '0')
}

/** A small database in memory, that keeps what a link may rely on: it is the same whoever connects. */
export class MemoryServer {
  readonly tables = new Map<string, MemoryTable>()
  readonly objects = new Map<string, SchemaObject>()
  readonly marks = new Map<string, LoadedChunk>()
  /** `load shop.orders 2`, `make index …`, `clear …`: what was done for good, in order. */
  readonly done: string[] = []
  findings: Finding[] = []
  /** A value whose rows it loses in silence. */
  swallows: string | undefined
  /** It has a trigger, a view on which that rests, and a sequence whose value is how many transactions there were. */
  programs = false
  /** All transactions, in commit order. */
  readonly log: LoggedTransaction[] = []
  /** What links keep here of changes: see memory-changes.ts. */
  readonly applied = new Map<string, Mark>()
  readonly locks = new Map<string, object>()
  /** Commits of lanes. */
  commits = 0
  /** What of its log it may forget. */
  acked = ''
  /** Called when everything was read. */
  onIdle: () => void = () => undefined
  #version = 0
  #place = 0

  addTable(name: readonly string[], kind: Pick<MemoryTable, 'byKey' | 'identified'>): void {
    this.tables.set(name.join('.'), { name, ...kind, rows: [] })
    this.#version += 1
  }

  /** Inserts a row, or takes a later form of it to another place. */
  put(name: string, key: number, value: string): void {
    this.write([{ table: name, key, value }])
  }

  /** One transaction: rows come, change, and go where there is no value. */
  write(writes: readonly Write[]): void {
    const changes = writes.map(({ table, key, value }) => {
      const identified = this.table(table).identified
      const before = identified ? this.table(table).rows.find((row) => row.key === key) : undefined
      const change = { table, before, after: value === undefined ? undefined : { key, value } }
      this.change(change)
      return change
    })
    this.#version += 1
    this.log.push({ at: this.end, changes })
  }

  /** What a change makes of the rows; false when the row that it tells of is not there. */
  change({ table: name, before, after }: RowChange): boolean {
    const table = this.table(name)
    const at = before
      ? table.rows.findIndex(({ key, value }) => key === before.key && value === before.value)
      : -1
    if (before && at < 0) return false
    if (before) table.rows.splice(at, 1)
    const { identified, rows } = table
    if (after && identified && rows.some(({ key }) => key === after.key)) return false
    this.#place += 1
    if (after) rows.push({ ...after, place: this.#place })
    return true
  }

  /** The position at which its log ends. */
  get end(): string {
    return positionAt(this.#version)
  }

  table(name: string): MemoryTable {
    const table = this.tables.get(name)
    assert.ok(table, `there is a table ${name}`)
    return table
  }

  /** The rows of a table, to compare. */
  rowsOf(name: string): string[] {
    return this.table(name)
      .rows.map(({ key, value }) => `${key} ${value}`)
      .toSorted()
  }

  get version(): number {
    return this.#version
  }

  connect(life: Lifetime): LinkEnd {
    return new MemoryConnection(this, life)
  }
}

class MemoryConnection implements LinkEnd {
  readonly facts = { engine: 'memory', flavor: 'Memory', version: '1' }
  readonly schema
  readonly rows
  readonly changes
  readonly apply
  readonly #server: MemoryServer
  readonly #life: Lifetime

  constructor(server: MemoryServer, life: Lifetime) {
    this.#server = server
    this.#life = life
    this.schema = {
      readSchema: (selection: Selection) => life.call(() => readSchema(server, selection)),
      checkSchema: (schema: Schema, { phases }: CheckOptions) =>
        life.call(() => checkSchema(server, schema, phases)),
      makeObjects: (objects: readonly SchemaObject[], options: MakeOptions) =>
        this.#make(objects, options),
    }
    this.changes = memoryChanges(server, life)
    this.apply = memoryApply(server, life)
    this.rows = {
      beginCopy: (options: BeginCopy) =>
        life.call((): CopyReader => new MemoryReader(server, options, life)),
      openCopy: (options: OpenCopy) =>
        life.call((): CopyWriter => new MemoryWriter(server, options, life)),
    }
  }

  probe(): Promise<Finding[]> {
    return this.#life.call(() => this.#server.findings)
  }

  async #make(objects: readonly SchemaObject[], { onMade }: MakeOptions): Promise<void> {
    for (const object of objects) {
      await this.#life.call(() => {
        const missing = object.needs.filter((need) => !this.#server.objects.has(need))
        assert.deepEqual(missing, [], `${object.id} needs others first`)
        makeObject(this.#server, object)
      })
      onMade(object)
    }
  }
}

function makeObject(server: MemoryServer, object: SchemaObject): void {
  const there = server.objects.get(object.id)
  if (there) {
    if (JSON.stringify(there) === JSON.stringify(object)) return
    throw new Fault('exists', `make ${object.id}: there is another of that name`)
  }
  const [statement = ''] = object.statements
  if (object.kind === 'table') {
    const { name, kind } = JSON.parse(statement) as {
      name: string[]
      kind: Pick<MemoryTable, 'byKey' | 'identified'>
    }
    server.addTable(name, kind)
  }
  server.objects.set(object.id, object)
  server.done.push(`make ${object.id}`)
}

/** Each table has an index, and a view over all is made at the end. */
function readSchema(server: MemoryServer, selection: Selection): Schema {
  const chosen = [...server.tables.values()].filter(({ name }) => selection.accepts(name))
  const objects = chosen.flatMap(({ name, byKey, identified }): SchemaObject[] => {
    const target = selection.map(name)
    const statement = JSON.stringify({ name: target, kind: { byKey, identified } })
    const common = { name, table: name, needs: [] }
    const id = name.join('.')
    return [
      { ...common, id: `table ${id}`, kind: 'table', stage: 'rows', statements: [statement] },
      { ...common, id: `index ${id}`, kind: 'index', stage: 'table', statements: [id] },
    ]
  })
  if (chosen.length > 0) {
    const common = { kind: 'view', name: ['v', 'all'], stage: 'end', statements: ['v'] } as const
    objects.push({ ...common, id: 'view all of all', needs: ['view all'] })
    objects.unshift({ ...common, id: 'view all', needs: [] })
  }
  if (server.programs) {
    const end = { name: ['v', 'log'], stage: 'end', needs: [] } as const
    const value = String(server.log.length)
    objects.push({ ...end, id: 'sequence', kind: 'sequence', statements: [value] })
    objects.push({ ...end, id: 'trigger', kind: 'trigger', statements: ['t'] })
    objects.push({ ...end, id: 'late', kind: 'view', statements: ['v'], needs: ['trigger'] })
  }
  const inOrder = objects.toSorted((a, b) => a.needs.length - b.needs.length)
  const tables = chosen.map((table) => shapeOf(table, selection.map(table.name)))
  const { engine, flavor, version } = { engine: 'memory', flavor: 'Memory', version: '1' }
  return { engine, flavor, version, objects: inOrder, tables, findings: [] }
}

function shapeOf({ name, identified, rows }: MemoryTable, target: readonly string[]): TableShape {
  const key = { name: 'pk', primary: true, columns: ['key'], identifies: identified }
  const columns = ['key', 'value'].map((column) => ({
    name: column,
    type: 'text',
    nullable: false,
    generated: false,
  }))
  const rowsEstimate = rows.length
  return { name, target, columns, keys: [key], rowsEstimate, sizeBytes: rows.length * 10 }
}

function checkSchema(server: MemoryServer, schema: Schema, phases: readonly string[]): Finding[] {
  return schema.tables.flatMap(({ target }): Finding[] => {
    const there = server.tables.get(target.join('.'))
    const said = `table ${target.join('.')}`
    if (!there && !phases.includes('schema')) {
      return [{ severity: 'blocks', code: 'no-table', said: `${said} is not there` }]
    }
    if (!there || there.rows.length === 0 || !phases.includes('copy')) return []
    return [{ severity: 'blocks', code: 'has-rows', said: `${said} has rows` }]
  })
}

class MemoryReader implements CopyReader {
  readonly position
  readonly stamp
  readonly #life: Lifetime
  readonly #rows: ReadonlyMap<string, readonly Row[]>
  readonly #server: MemoryServer
  readonly #parallel: number
  #reading = 0

  constructor(server: MemoryServer, options: BeginCopy, life: Lifetime) {
    this.#life = life
    this.#server = server
    this.#parallel = options.parallel
    this.position = { history: 'memory', at: server.end }
    this.stamp = String(server.version)
    const names = options.tables.map(({ name }) => name.join('.'))
    this.#rows = new Map(names.map((name) => [name, [...server.table(name).rows]]))
  }

  encodings(): ['neutral'] {
    return ['neutral']
  }

  chunksByKey(table: TableShape): boolean {
    return this.#server.table(table.name.join('.')).byKey
  }

  plan(table: TableShape, { index }: { readonly index: number }): Promise<readonly Chunk[]> {
    return this.#life.call(() => {
      const order = this.#order(table)
      const rows = this.#rowsOf(table)
        .map(order)
        .toSorted((a, b) => a - b)
      const borders = rows.filter((_, at) => at > 0 && at % rowsPerChunk === 0)
      return [Number.NEGATIVE_INFINITY, ...borders].map((first, at, all) => ({
        table: index,
        index: at,
        sizeBytes: 10 * rowsPerChunk,
        range: `${first} ${all[at + 1] ?? Number.POSITIVE_INFINITY}`,
      }))
    })
  }

  async *read(table: TableShape, chunk: Chunk): AsyncIterable<RowBlock> {
    assert.ok(this.#reading < this.#parallel, 'no more chunks at once than sessions')
    this.#reading += 1
    try {
      const [first, next] = chunk.range.split(' ').map(Number)
      const order = this.#order(table)
      for (const row of this.#rowsOf(table)) {
        if (order(row) < Number(first) || order(row) >= Number(next)) continue
        const bytes = Buffer.from(JSON.stringify(row))
        yield await this.#life.call(() => ({ bytes, rows: 1 }))
      }
    } finally {
      this.#reading -= 1
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    assert.equal(this.#reading, 0, 'nothing is read any more')
  }

  #rowsOf(table: TableShape): readonly Row[] {
    return this.#rows.get(table.name.join('.')) ?? []
  }

  #order(table: TableShape): (row: Row) => number {
    return this.chunksByKey(table) ? ({ key }) => key : ({ place }) => place
  }
}

class MemoryWriter implements CopyWriter {
  readonly #server: MemoryServer
  readonly #options: OpenCopy
  readonly #life: Lifetime

  constructor(server: MemoryServer, options: OpenCopy, life: Lifetime) {
    this.#server = server
    this.#options = options
    this.#life = life
  }

  encodings(): ['neutral'] {
    return ['neutral']
  }

  loaded(): Promise<readonly LoadedChunk[]> {
    return this.#life.call(() =>
      [...this.#server.marks].flatMap(([key, mark]) =>
        key.startsWith(`${this.#options.link} `) ? mark : [],
      ),
    )
  }

  async load(table: TableShape, chunk: Chunk, rows: AsyncIterable<RowBlock>): Promise<bigint> {
    const came: Row[] = []
    for await (const { bytes } of rows) came.push(JSON.parse(bytes.toString()) as Row)
    return this.#life.call(() => {
      const name = table.target.join('.')
      const key = this.#key(chunk.table, chunk.index)
      if (this.#server.marks.has(key)) throw new Fault('conflict', `load ${name}: it is marked`)
      const into = this.#server.table(name)
      const keys = new Set(into.rows.map((row) => row.key))
      const twice = came.find((row) => into.identified && keys.has(row.key))
      if (twice) throw new Fault('engine', `load ${name}: key ${twice.key} is there already`)
      const kept = came.filter((row) => row.value !== this.#server.swallows)
      into.rows.push(...kept)
      const count = BigInt(kept.length)
      const { run } = this.#options
      this.#server.marks.set(key, { table: chunk.table, index: chunk.index, run, rows: count })
      this.#server.done.push(`load ${name} ${chunk.index}`)
      return count
    })
  }

  clear(table: TableShape, { index }: { readonly index: number }): Promise<void> {
    return this.#life.call(() => {
      this.#server.table(table.target.join('.')).rows = []
      for (const [key, mark] of this.#server.marks) {
        if (mark.table === index) this.#server.marks.delete(key)
      }
      this.#server.done.push(`clear ${table.target.join('.')}`)
    })
  }

  finish(): Promise<void> {
    return this.#life.call(() => {
      this.#server.marks.clear()
      this.#server.done.push('finish')
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #key(table: number, index: number): string {
    return `${this.#options.link} ${table} ${index}`
  }
}
