import assert from 'node:assert/strict'
import { Fault } from '#base/faults'
import type { LogBeat, Position } from '#change'
import type {
  Applier,
  ApplyLane,
  ApplyTable,
  ApplyTarget,
  Mark,
  OpenApply,
  WriteOptions,
  Written,
} from '#change/apply'
import type {
  Batch,
  Change,
  ChangeReader,
  ChangeSource,
  OpenChanges,
  Relation,
  RowRun,
  Statement,
  Transaction,
  Truncation,
} from '#change/batch'
import { Dice } from './dice.ts'
import type { Lifetime, LoggedTransaction, MemoryServer, RowChange } from './memory-server.ts'

const transactionsPerBatch = 5

/** The changes of a server in memory, in batches of any size. */
export function memoryChanges(server: MemoryServer, life: Lifetime): ChangeSource {
  return {
    openChanges: (options) => life.call(() => new MemoryChangeReader(server, life, options)),
    endChanges: () => life.call(() => void server.done.push('end changes')),
  }
}

class MemoryChangeReader implements ChangeReader {
  readonly #server: MemoryServer
  readonly #life: Lifetime
  readonly #options: OpenChanges
  readonly #relations = new Map<string, Relation>()

  constructor(server: MemoryServer, life: Lifetime, options: OpenChanges) {
    this.#server = server
    this.#life = life
    this.#options = options
    assert.ok(options.after.at >= server.acked, 'nothing is read that the source may forget')
  }

  async *read({ signal }: { readonly signal: AbortSignal }): AsyncIterable<Batch | LogBeat> {
    let cursor = this.#options.after.at
    for (;;) {
      signal.throwIfAborted()
      const next = this.#server.log.filter(({ at }) => at > cursor).slice(0, transactionsPerBatch)
      for (const batch of this.#batches(next)) yield await this.#life.call(() => batch)
      cursor = next.at(-1)?.at ?? cursor
      if (next.length > 0) continue
      // Nobody waits for a second here; who works beside has a turn.
      await new Promise((resolve) => setImmediate(resolve))
      signal.throwIfAborted()
      this.#server.onIdle()
      const { end, log } = this.#server
      if (log.at(-1)?.at !== undefined && (log.at(-1)?.at ?? '') > cursor) continue
      cursor = end > cursor ? end : cursor
      yield await this.#life.call(() => beatAt(cursor))
    }
  }

  ack({ at }: Position): Promise<void> {
    return this.#life.call(() => {
      if (at > this.#server.acked) this.#server.acked = at
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  *#batches(transactions: readonly LoggedTransaction[]): Generator<Batch> {
    let whole: Transaction[] = []
    for (const one of transactions) {
      const runs = one.changes.map((change) => this.#runOf(change))
      const pieces = cut(runs, this.#options.batchRowsMax)
      const all = pieces.map((changes, index) =>
        transactionOf(one, changes, { first: index === 0, last: index === pieces.length - 1 }),
      )
      if (all.length <= 1) whole.push(...all)
      else {
        if (whole.length > 0) yield batchOf(whole)
        whole = []
        for (const piece of all) yield batchOf([piece])
      }
    }
    if (whole.length > 0) yield batchOf(whole)
  }

  #runOf({ table, before, after }: RowChange): Change {
    const relation = this.#relationOf(table)
    const images = [before, after].flatMap((row) => (row ? [row] : []))
    const cells: number[] = []
    let text = ''
    for (const row of images) {
      for (const cell of [String(row.key), row.value]) {
        cells.push(text.length, text.length + cell.length)
        text += cell
      }
    }
    const kind = before === undefined ? 'insert' : after === undefined ? 'delete' : 'update'
    return { kind, relation, rows: 1, bytes: Buffer.from(text), cells: Int32Array.from(cells) }
  }

  #relationOf(table: string): Relation {
    const known = this.#relations.get(table)
    if (known) return known
    const { name, identified } = this.#server.table(table)
    const column = (own: string, identifies: boolean) => ({
      name: own,
      type: 'text',
      code: 1,
      modifier: 0,
      identifies,
    })
    const columns = [column('key', identified), column('value', !identified)]
    const id = this.#relations.size
    const relation: Relation = { id, name, columns, form: 'neutral', before: 'full' }
    this.#relations.set(table, relation)
    return relation
  }
}

function beatAt(at: string): LogBeat {
  return { kind: 'beat', history: 'memory', at, timeUs: BigInt(at) * 1_000_000n }
}

function cut(runs: readonly Change[], max: number): Change[][] {
  const pieces: Change[][] = []
  for (let at = 0; at < runs.length || at === 0; at += max) pieces.push(runs.slice(at, at + max))
  return pieces
}

function transactionOf(
  { at }: LoggedTransaction,
  changes: readonly Change[],
  { first, last }: { readonly first: boolean; readonly last: boolean },
): Transaction {
  return {
    id: `t${at}`,
    timeUs: BigInt(at) * 1_000_000n,
    origin: undefined,
    begins: first,
    ends: last,
    changes,
    position: last ? { history: 'memory', at } : undefined,
  }
}

function batchOf(transactions: readonly Transaction[]): Batch {
  const rows = transactions.reduce((sum, { changes }) => sum + changes.length, 0)
  return { kind: 'batch', transactions, rows, sizeBytes: rows * 20 }
}

/** A target in memory that takes changes: each lane's rows are seen by others when it commits. */
export function memoryApply(server: MemoryServer, life: Lifetime): ApplyTarget {
  return {
    openApply: (options) => life.call(() => new MemoryApplier(server, life, options)),
    endApply: () =>
      life.call(() => {
        server.applied.clear()
        server.done.push('end apply')
      }),
  }
}

class MemoryApplier implements Applier {
  readonly forms = ['neutral'] as const
  readonly lanes: readonly MemoryLane[]
  readonly #server: MemoryServer
  readonly #life: Lifetime
  readonly #options: OpenApply

  constructor(server: MemoryServer, life: Lifetime, options: OpenApply) {
    this.#server = server
    this.#life = life
    this.#options = options
    // What sessions before had open went with them.
    server.locks.clear()
    const dice = new Dice(life.seed)
    this.lanes = Array.from(
      { length: options.lanes },
      (_, index) => new MemoryLane({ server, life, options, dice, index }),
    )
  }

  applied(): Promise<Mark | undefined> {
    return this.#life.call(() => unite([...this.#server.applied.values()]))
  }

  prepare(relation: Relation): Promise<ApplyTable> {
    return this.#life.call(() => {
      const target = this.#options.selection.map(relation.name)
      const table = this.#server.table(target.join('.'))
      const name = table.name.join('.')
      return {
        relation,
        target,
        keys: (run: RowRun) => {
          const touched = changesOf(run, name).flatMap(({ before, after }) => [before, after])
          if (!table.identified) return Uint32Array.of(hash(name))
          return Uint32Array.from(touched.flatMap((row) => (row ? hash(`${name} ${row.key}`) : [])))
        },
      }
    })
  }

  define(_statement: Statement, mark: Mark): Promise<void> {
    return this.#life.call(() => {
      assert.equal(this.#server.locks.size, 0, 'no lane has a transaction open')
      this.#server.done.push(`define ${mark.low.at}`)
      this.#server.applied.set('0', mark)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.locks.clear()
  }
}

/** As `applied` of an engine puts the marks of lanes together. */
export function unite(marks: readonly Mark[]): Mark | undefined {
  const [first, ...rest] = marks
  if (!first) return undefined
  const low = rest.reduce((max, { low: one }) => (one.at > max.at ? one : max), first.low)
  const beyond = new Set(marks.flatMap((mark) => mark.beyond).filter((at) => at > low.at))
  return { low, beyond: [...beyond] }
}

type LaneParts = {
  readonly server: MemoryServer
  readonly life: Lifetime
  readonly options: OpenApply
  readonly dice: Dice
  readonly index: number
}

class MemoryLane implements ApplyLane {
  readonly #parts: LaneParts
  #staged: RowChange[] = []
  #calls = 0

  constructor(parts: LaneParts) {
    this.#parts = parts
  }

  write(
    changes: readonly (RowRun | Truncation)[],
    { converge, alone, signal }: WriteOptions,
  ): Promise<Written> {
    return this.#once(async () => {
      const { life, options } = this.#parts
      await this.#dawdle(signal)
      return life.call(() => {
        const { spurious } = life
        if (!alone && spurious > 0 && this.#parts.dice.roll(spurious) === 0) {
          throw new Fault('conflict', 'apply: what it needs is not there yet')
        }
        const policy = converge || (!alone && options.lanes > 1) ? 'stop' : options.conflicts
        let [rows, conflicts] = [0, 0]
        for (const run of changes) {
          assert.ok(run.kind !== 'truncate')
          const target = options.selection.map(run.relation.name).join('.')
          for (const change of changesOf(run, target)) {
            conflicts += this.#stage(change, converge, policy) ? 0 : 1
            rows += 1
          }
        }
        return { rows, conflicts }
      })
    })
  }

  commit(mark: Mark, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    return this.#once(async () => {
      await this.#dawdle(signal)
      const { life, server, index } = this.#parts
      await life.call(() => {
        for (const change of this.#staged) {
          assert.ok(server.change(change), `${JSON.stringify(change)} fits`)
        }
        if (this.#staged.length > 0) server.done.push(`apply ${mark.low.at}`)
        server.applied.set(String(index), mark)
        server.commits += 1
        this.#drop()
      })
    })
  }

  async rollback(): Promise<void> {
    this.#drop()
  }

  /** Stages a change; false when it was a conflict, and was settled. */
  #stage(change: RowChange, converge: boolean, policy: OpenApply['conflicts']): boolean {
    const { table } = change
    this.#lock(change)
    const meets = this.#see(table, (change.before ?? change.after)?.key)
    const fits = change.before ? meets === change.before.value : meets === undefined
    if (fits || !this.#parts.server.table(table).identified) {
      this.#staged.push(change)
      return true
    }
    if (!converge && policy === 'stop') {
      this.#drop()
      throw new Fault('conflict', `apply to ${table}: ${JSON.stringify(change)} meets ${meets}`)
    }
    const key = (change.before ?? change.after)?.key ?? 0
    const there = meets === undefined ? undefined : { key, value: meets }
    const overwrites = converge || policy === 'overwrite'
    const nothing = there === undefined && change.after === undefined
    if (overwrites && !nothing) this.#staged.push({ table, before: there, after: change.after })
    return converge
  }

  /** The value of a row as this lane sees it. */
  #see(table: string, key: number | undefined): string | undefined {
    let value = this.#parts.server.table(table).rows.find((row) => row.key === key)?.value
    for (const { table: name, before, after } of this.#staged) {
      if (name !== table) continue
      if (before?.key === key) value = undefined
      if (after?.key === key) value = after?.value
    }
    return value
  }

  #lock({ table, before, after }: RowChange): void {
    const { server } = this.#parts
    for (const row of [before, after]) {
      if (!row) continue
      const name = server.table(table).identified ? `${table} ${row.key}` : table
      const holder = server.locks.get(name)
      assert.ok(holder === undefined || holder === this, `two lanes touch ${name} at once`)
      server.locks.set(name, this)
    }
  }

  #drop(): void {
    this.#staged = []
    const { locks } = this.#parts.server
    for (const [name, holder] of locks) if (holder === this) locks.delete(name)
  }

  /** Others may overtake it. */
  async #dawdle(signal: AbortSignal): Promise<void> {
    for (let turns = this.#parts.dice.roll(8); turns > 0; turns--) await Promise.resolve()
    signal.throwIfAborted()
  }

  async #once<T>(work: () => Promise<T>): Promise<T> {
    this.#calls += 1
    assert.equal(this.#calls, 1, 'one call at a time on each lane')
    try {
      return await work()
    } catch (error) {
      this.#drop()
      throw error
    } finally {
      this.#calls -= 1
    }
  }
}

/** The rows of a run, read again. */
function changesOf({ kind, bytes, cells, rows }: RowRun, table: string): RowChange[] {
  const image = (at: number) => {
    const cell = (index: number) => {
      const from = at * 4 + index * 2
      return bytes.toString('utf8', cells[from], cells[from + 1])
    }
    return { key: Number(cell(0)), value: cell(1) }
  }
  return Array.from({ length: rows }, (_, row) => ({
    table,
    before: kind === 'insert' ? undefined : image(kind === 'update' ? row * 2 : row),
    after: kind === 'delete' ? undefined : image(kind === 'update' ? row * 2 + 1 : row),
  }))
}

function hash(text: string): number {
  let sum = 2_166_136_261
  for (const char of text) sum = Math.imul(sum ^ (char.codePointAt(0) ?? 0), 16_777_619)
  return sum >>> 0
}
