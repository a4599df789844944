import { Fault } from '#base/faults'
import type { Shared } from './lane.ts'
import { arraysMaxBytes, type Cells, valuesBytes } from './encode.kernel.ts'
import type { Pipeline } from './pipeline.ts'
import type { RowChange, Step } from './plan.ts'
import { cellsOf, type Statement, TableStatements } from './statements.ts'
import type { PreparedTable } from './table.ts'

/** From so many rows on they go together in one statement. */
const togetherMin = 3
const togetherMax = 2000
/** A row that takes more goes by itself. */
const largeRowBytes = 128 << 10

/** What was sent, and how many rows it should touch; undefined when any number will do. */
type Sent = {
  readonly expected: number | undefined
  readonly table: PreparedTable | undefined
  /** The row that it is about, when it is about one. */
  readonly change: RowChange | undefined
}

/** Sends the steps of a plan down a pipeline, and knows what each statement should have done. */
export class StepSender {
  readonly #pipe: Pipeline
  readonly #shared: Shared
  readonly #statements = new WeakMap<PreparedTable, TableStatements>()
  #sent: Sent[] = []

  constructor(pipe: Pipeline, shared: Shared) {
    this.#pipe = pipe
    this.#shared = shared
  }

  /** What was sent since this was asked last. */
  taken(): readonly Sent[] {
    const sent = this.#sent
    this.#sent = []
    return sent
  }

  statementsOf(table: PreparedTable): TableStatements {
    const known = this.#statements.get(table)
    if (known) return known
    const made = new TableStatements(table)
    this.#statements.set(table, made)
    return made
  }

  async plain(sql: string, signal: AbortSignal): Promise<void> {
    this.#sent.push({ expected: undefined, table: undefined, change: undefined })
    await this.#pipe.run(sql, [], signal)
  }

  async send(step: Step, converge: boolean, signal: AbortSignal): Promise<void> {
    switch (step.kind) {
      case 'truncate':
        return this.#truncate(step, signal)
      case 'insert':
        if (converge) return this.#together(step.changes, (one) => this.#upsert(one), signal)
        return this.#insert(step.changes, signal)
      case 'update':
      case 'delete':
        return this.#together(step.changes, (one) => this.#batch(one, converge), signal, converge)
      case 'single':
        for (const change of step.changes) await this.one(change, converge, signal)
    }
  }

  /** The statements of one change by itself. */
  async one(change: RowChange, converge: boolean, signal: AbortSignal): Promise<void> {
    const statements = this.statementsOf(change.table)
    if (converge && !change.table.key) throw keylessConverge(change.table)
    const isWhole = isComplete(change)
    if (change.kind === 'insert' || (converge && change.kind === 'update' && isWhole)) {
      if (change.moves) await this.#put(change, statements.delete(change, false), undefined, signal)
      const statement = statements.insert(converge ? 'upsert' : 'plain', false)
      return this.#put(change, statement, converge ? undefined : 1, signal)
    }
    const statement =
      change.kind === 'delete' ? statements.delete(change, false) : statements.update(change, false)
    await this.#put(change, statement, this.#expected(change, converge), signal)
  }

  /** One row, unless the copy may have brought what comes later; then a row that made room must still be found. */
  #expected(change: RowChange, converge: boolean): 1 | undefined {
    if (!converge) return 1
    return change.kind === 'update' && this.#shared.displaced ? 1 : undefined
  }

  async #put(
    change: RowChange,
    statement: Statement | undefined,
    expected: number | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    if (!statement) throw new Error('broken invariant: one change has a statement')
    this.#sent.push({ expected, table: change.table, change })
    await this.#pipe.one(statement.sql, cellsOf(change, statement), signal)
  }

  async #truncate(step: Extract<Step, { kind: 'truncate' }>, signal: AbortSignal): Promise<void> {
    const names = [...new Set(step.tables.map((table) => table.form.only))]
    // The log names every table that was emptied: what else points to one of them on the target is not the source's.
    this.#sent.push({ expected: undefined, table: step.tables[0], change: undefined })
    await this.#pipe.run(
      `truncate ${names.join(', ')}${step.restart ? ' restart identity' : ''}`,
      [],
      signal,
    )
  }

  async #insert(changes: readonly RowChange[], signal: AbortSignal): Promise<void> {
    const [first] = changes
    if (!first || changes.length < togetherMin || first.table.columns.length === 0) {
      for (const change of changes) await this.one(change, false, signal)
      return
    }
    const statements = this.statementsOf(first.table)
    const insert = statements.insert('plain', false)
    const large: RowChange[] = []
    this.#sent.push({ expected: undefined, table: first.table, change: undefined })
    const place = this.#sent.length - 1
    await this.#pipe.beginCopy(statements.copySql, signal)
    for (const change of changes) {
      const cells = cellsOf(change, insert)
      if (valuesBytes(cells) > largeRowBytes) large.push(change)
      else await this.#pipe.copyRow(cells, signal)
    }
    await this.#pipe.endCopy(signal)
    const expected = changes.length - large.length
    this.#sent[place] = { expected, table: first.table, change: undefined }
    for (const change of large) await this.one(change, false, signal)
  }

  #upsert(change: RowChange): Statement | undefined {
    const statements = this.statementsOf(change.table)
    if (!change.table.key) throw keylessConverge(change.table)
    return statements.castable ? statements.insert('upsert', true) : undefined
  }

  #batch(change: RowChange, converge: boolean): Statement | undefined {
    const statements = this.statementsOf(change.table)
    if (change.kind === 'delete') return statements.delete(change, true)
    if (converge && isComplete(change)) return this.#upsert(change)
    return statements.update(change, true)
  }

  /** Rows of which each has another key, and all the same columns. */
  async #together(
    changes: readonly RowChange[],
    statementOf: (change: RowChange) => Statement | undefined,
    signal: AbortSignal,
    converge = true,
  ): Promise<void> {
    const [first] = changes
    const statement = first && changes.length >= togetherMin ? statementOf(first) : undefined
    if (!first || !statement) {
      for (const change of changes) await this.one(change, converge, signal)
      return
    }
    const isChecked = this.#expected(first, converge) === 1
    let rows: Cells[] = []
    let sizeBytes = 0
    const flush = async () => {
      if (rows.length === 0) return
      const expected = isChecked ? rows.length : undefined
      this.#sent.push({ expected, table: first.table, change: undefined })
      await this.#pipe.many(statement.sql, rows, signal)
      rows = []
      sizeBytes = 0
    }
    for (const change of changes) {
      const cells = cellsOf(change, statement)
      const size = valuesBytes(cells)
      if (size > largeRowBytes) {
        await this.one(change, converge, signal)
        continue
      }
      if (rows.length >= togetherMax || sizeBytes + size > arraysMaxBytes) await flush()
      rows.push(cells)
      sizeBytes += size
    }
    await flush()
  }
}

/** Whether an update tells all that is in its row. */
export function isComplete(change: RowChange): boolean {
  return change.absent === '' || change.run.relation.before === 'full'
}

function keylessConverge(table: PreparedTable): Fault {
  return new Fault(
    'unsupported',
    `apply changes to ${table.shown}: its rows are as of several moments, and without a key they cannot be told apart`,
    { hint: 'Begin its copy anew, or give it a primary key on both sides.' },
  )
}
