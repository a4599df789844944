import { Fault } from '#base/faults'
import type { ApplyLane, ConflictPolicy, Mark, WriteOptions, Written } from '#change/apply'
import type { Relation, RowRun, Truncation } from '#change/batch'
import type { Result } from '../protocol/packets.ts'
import { ServerError } from '../protocol/server-error.ts'
import type { Session } from '../protocol/session.ts'
import { applyFault, exchange, looseSql, strictSql } from './apply-session.ts'
import type { MysqlApplyTable } from './apply-table.ts'
import { clashCondition, nameRow, readThere, recordConflict } from './conflicts.ts'
import { Fold } from './fold.ts'
import { markSql } from './marks.ts'
import { SqlBuffer } from './sql-buffer.ts'
import { type Step, type StepJob, writeInsert, writeKey, writeSteps } from './row-statements.ts'

/** So much is sent without waiting for answers. */
const sentMaxBytes = 2 * 1024 * 1024
const sentMaxStatements = 64

/** A duplicate key, and rows that foreign keys of other tables hold or miss. */
const conflictNumbers = new Set([1062, 1586, 1761, 1169, 1216, 1217, 1451, 1452, 1557])
const savepoint = Buffer.from('SAVEPOINT redoubt')
const savepointAll: readonly Buffer[] = [Buffer.from('SAVEPOINT redoubt_all')]
const toSavepoint = 'ROLLBACK TO SAVEPOINT redoubt'

export type LaneParts = {
  readonly session: Session
  readonly link: string
  readonly index: number
  /** One of several. */
  readonly several: boolean
  readonly conflicts: ConflictPolicy
  readonly namesRow: boolean
  readonly packetMaxBytes: number
  readonly tableOf: (relation: Relation) => MysqlApplyTable
}

type Mode = { readonly converge: boolean; readonly settles: boolean; readonly signal: AbortSignal }

/** A session that writes rows as the log has them. */
export class MysqlLane implements ApplyLane {
  readonly #parts: LaneParts
  readonly #out = new SqlBuffer()
  /** Written, and not sent yet. */
  #steps: Step[] = []
  /** What the session is set to. */
  #follows = false
  #loose = false

  constructor(parts: LaneParts) {
    this.#parts = parts
  }

  async write(changes: readonly (RowRun | Truncation)[], options: WriteOptions): Promise<Written> {
    const { several } = this.#parts
    const { converge, signal } = options
    const mode = { converge, settles: !several || options.alone === true, signal }
    const counted = { rows: 0, conflicts: 0 }
    try {
      if (changes.length > 1 && !converge && (await this.#folded(changes, mode, counted))) {
        return counted
      }
      for (const change of changes) {
        if (change.kind === 'truncate') await this.#truncate(change, mode, counted)
        else await this.#run(change, mode, counted)
      }
      await this.#flush(mode, counted)
      return counted
    } catch (error) {
      await this.#undo()
      throw error
    }
  }

  /** Few statements for all of them; false, and nothing done, where that does not come to what it should. */
  async #folded(
    changes: readonly (RowRun | Truncation)[],
    mode: Mode,
    counted: Written,
  ): Promise<boolean> {
    const fold = new Fold(this.#out, this.#parts)
    let lead = savepointAll
    let rows = 0
    const sendAll = (): Promise<boolean> => {
      const first = lead
      lead = []
      return this.#sendAll(first, mode)
    }
    const send = async (steps: Iterable<Step>): Promise<boolean> => {
      for (const step of steps) {
        this.#check(step)
        this.#steps.push(step)
        if (this.#isFull && !(await sendAll())) return false
      }
      return true
    }
    for (const run of changes) {
      if (run.kind === 'truncate') return this.#unfold(lead, mode)
      const table = this.#parts.tableOf(run.relation)
      const job = { ...this.#job(table, run, mode), single: false }
      if (job.follows) return this.#unfold(lead, mode)
      const takes = Fold.takes(table)
      if (!takes) {
        const fits = (await send(fold.steps(table.at))) && (await send(writeSteps(job, this.#out)))
        if (!fits) return this.#unfold(lead, mode)
      }
      for (let row = 0; takes && row < run.rows; row++) {
        if (fold.add(table, run, row)) continue
        const own = { ...job, first: row, last: row + 1 }
        const fits = (await send(fold.steps(table.at))) && (await send(writeSteps(own, this.#out)))
        if (!fits) return this.#unfold(lead, mode)
      }
      rows += run.rows
    }
    if (!(await send(fold.steps())) || !(await sendAll())) return this.#unfold(lead, mode)
    count(counted, { rows, conflicts: 0 })
    return true
  }

  /** Takes back what was sent; nothing was where the savepoint was not set either. */
  async #unfold(lead: readonly Buffer[], mode: Mode): Promise<false> {
    this.#steps = []
    this.#out.clear()
    if (lead.length === 0) await this.#query(`${toSavepoint}_all`, mode)
    return false
  }

  async #run(run: RowRun, mode: Mode, counted: Written): Promise<void> {
    const table = this.#parts.tableOf(run.relation)
    const job = { ...this.#job(table, run, mode), single: false }
    for (const step of writeSteps(job, this.#out)) {
      this.#check(step)
      this.#steps.push(step)
      if (this.#isFull) await this.#flush(mode, counted)
    }
  }

  get #isFull(): boolean {
    return this.#out.sizeBytes >= sentMaxBytes || this.#steps.length >= sentMaxStatements
  }

  #job(table: MysqlApplyTable, run: RowRun, { converge }: Mode): StepJob {
    const { namesRow } = this.#parts
    // Cascades that the log does not have are left to the server; else nothing happens by itself.
    const follows = run.cascades === true && table.isParent
    return { table, run, first: 0, last: run.rows, namesRow, single: true, converge, follows }
  }

  #check({ start, end, table }: Step): void {
    const { packetMaxBytes } = this.#parts
    if (end - start + 1 <= packetMaxBytes) return
    throw new Fault(
      'refused',
      `apply to ${table.at}: a row needs ${end - start} bytes, and the target takes ${packetMaxBytes}`,
      { hint: 'Run on the target: SET GLOBAL max_allowed_packet = 1073741824' },
    )
  }

  /** Sends what was written. What does not come to what it should is taken back, and done row by row. */
  async #flush(mode: Mode, counted: Written): Promise<void> {
    const steps = this.#steps
    if (steps.length === 0) return
    if (await this.#sendAll([savepoint], mode)) {
      for (const { rows } of steps) count(counted, { rows, conflicts: 0 })
      return
    }
    await this.#query(toSavepoint, mode)
    await this.#again(steps, mode, counted)
  }

  /** Sends what was written; whether all of it came to what it should. */
  async #sendAll(lead: readonly Buffer[], mode: Mode): Promise<boolean> {
    const steps = this.#steps
    this.#steps = []
    const statements: Buffer[] = [...lead]
    const places = steps.map((step) => {
      statements.push(...this.#settings(step), this.#out.view(step.start, step.end))
      return statements.length - 1
    })
    const answers = await exchange(this.#parts.session, statements, mode)
    this.#out.clear()
    let fits = true
    for (const [index, step] of steps.entries()) {
      if (!this.#fits(step, answers[places[index] ?? 0])) fits = false
    }
    return fits
  }

  /** What the session is to be set to before a statement. */
  #settings({ follows, loose }: Step): Buffer[] {
    const sets: Buffer[] = []
    if (follows !== this.#follows) {
      sets.push(Buffer.from(`SET SESSION foreign_key_checks = ${follows ? 1 : 0}`))
    }
    if (loose !== this.#loose) sets.push(Buffer.from(loose ? looseSql : strictSql))
    this.#follows = follows
    this.#loose = loose
    return sets
  }

  /** Whether an answer is what was expected; false for what may be a conflict, and a throw for all else. */
  #fits(step: Step, answer: Result | ServerError | undefined): boolean {
    if (answer === undefined) return false
    if (answer instanceof ServerError) {
      if (conflictNumbers.has(answer.number)) return false
      throw applyFault(answer, `apply ${step.run.kind} to ${step.table.at}`)
    }
    switch (step.expect) {
      case 'rows':
        return answer.affectedRows === step.rows
      case 'twice':
        return answer.affectedRows === 2 * step.rows
      case 'found':
        return matched(answer) === 1
      case 'none':
        return answer.affectedRows === 0
      case undefined:
        return true
      default:
        return step.expect satisfies never
    }
  }

  async #again(steps: readonly Step[], mode: Mode, counted: Written): Promise<void> {
    for (const { table, run, first, rows } of steps) {
      const job = this.#job(table, run, mode)
      for (let row = first; row < first + rows; row++) {
        count(counted, await this.#row({ ...job, first: row, last: row + 1 }, mode))
      }
    }
  }

  /** One row by itself; a conflict is settled, or thrown. */
  async #row(job: StepJob, mode: Mode): Promise<Written> {
    for (const step of writeSteps(job, this.#out)) {
      const answer = await this.#take(step, mode)
      if (this.#fits(step, answer)) continue
      return this.#settle(step, answer instanceof ServerError ? answer : undefined, mode)
    }
    return { rows: 1, conflicts: 0 }
  }

  async #settle(step: Step, error: ServerError | undefined, mode: Mode): Promise<Written> {
    const { conflicts, link, session } = this.#parts
    const { table, run, first: row } = step
    if (mode.converge) return this.#converge(step, error, mode)
    if (conflicts === 'stop' || !mode.settles) throw conflictOf(step, error)
    const image = run.kind === 'update' ? 1 : 0
    const condition = run.kind === 'delete' ? undefined : clashCondition(table, run, row, image)
    const there = condition ? await readThere(session, table, condition, mode) : []
    if (error && there.length === 0) throw conflictOf(step, error)
    if (conflicts === 'overwrite') await this.#overwrite(step, condition, mode)
    await recordConflict(session, { table, run, row, there }, { link, settled: conflicts }, mode)
    return { rows: conflicts === 'overwrite' ? 1 : 0, conflicts: 1 }
  }

  /** What the copy has already is of a later time: what stands in the way comes again as it was then. */
  async #converge(step: Step, error: ServerError | undefined, mode: Mode): Promise<Written> {
    const { table, run, first: row } = step
    if (run.kind !== 'update') throw conflictOf(step, error)
    const job = { ...this.#job(table, run, mode), converge: false, first: row, last: row + 1 }
    const isWhole = this.#cut(() => writeInsert(job, row, this.#out)).length > 0
    if (!isWhole && table.uniqueKeys.length > 1) {
      throw new Fault('unsupported', `apply again to ${table.at}: the log has parts of rows only`, {
        hint: 'Set binlog_row_image = FULL on the source, and copy this table anew.',
      })
    }
    // A row that is gone, and of which the log tells a part only, is let be.
    if (!isWhole && !error) return { rows: 1, conflicts: 0 }
    await this.#overwrite(step, clashCondition(table, run, row, 1), mode)
    return { rows: 1, conflicts: 0 }
  }

  /** The source's row takes the place of whatever stands in its way, and comes where it was gone. */
  async #overwrite(step: Step, clash: Buffer | undefined, mode: Mode): Promise<void> {
    const { table, run, first: row } = step
    if (run.kind === 'delete') return
    const job = { ...this.#job(table, run, mode), converge: false, first: row, last: row + 1 }
    if (clash) {
      const own =
        run.kind === 'update' && table.rowKey
          ? this.#cut(() => writeKey(job, row, this.#out))
          : undefined
      const others = own ? [Buffer.from(' AND NOT '), own] : []
      const sql = Buffer.concat([
        Buffer.from(`DELETE FROM ${table.at} WHERE (`),
        clash,
        Buffer.from(')'),
        ...others,
      ])
      const plain = { ...step, follows: false, loose: false }
      for (const set of this.#settings(plain)) await this.#send(set, mode)
      await this.#send(sql, mode)
    }
    if (run.kind === 'update') {
      const [update] = writeSteps(job, this.#out)
      if (update && this.#fits(update, await this.#take(update, mode))) return
    }
    const insert = writeInsert(job, row, this.#out)
    if (!insert || !this.#fits(insert, await this.#take(insert, mode))) {
      throw conflictOf(step, undefined)
    }
  }

  /** What is written meanwhile, taken out of the buffer. */
  #cut(write: () => void): Buffer {
    const start = this.#out.sizeBytes
    write()
    const bytes = Buffer.from(this.#out.view(start, this.#out.sizeBytes))
    this.#out.cut(start)
    return bytes
  }

  async #take(step: Step, mode: Mode): Promise<Result | ServerError> {
    const sql = Buffer.from(this.#out.view(step.start, step.end))
    this.#out.cut(step.start)
    const answers = await exchange(this.#parts.session, [...this.#settings(step), sql], mode)
    const answer = answers.at(-1)
    if (answer === undefined) throw new Fault('protocol', 'apply changes: nothing was answered')
    return answer
  }

  /** A table is emptied row by row: TRUNCATE would commit. */
  async #truncate(change: Truncation, mode: Mode, counted: Written): Promise<void> {
    await this.#flush(mode, counted)
    for (const relation of change.relations) {
      const { at } = this.#parts.tableOf(relation)
      await this.#query(`DELETE FROM ${at}`, mode)
    }
  }

  async commit(mark: Mark, options: { readonly signal: AbortSignal }): Promise<void> {
    const { link, index } = this.#parts
    try {
      await this.#query(markSql(link, index, mark), options)
      await this.#query('COMMIT', options)
    } catch (error) {
      await this.#undo()
      throw error
    }
  }

  async rollback(): Promise<void> {
    this.#steps = []
    this.#out.clear()
    if (!this.#parts.session.alive) return
    await this.#query('ROLLBACK', { signal: AbortSignal.timeout(undoMaxMs) })
  }

  /** After a fault: what cannot be taken back goes with its session. */
  async #undo(): Promise<void> {
    try {
      await this.rollback()
    } catch (error) {
      this.#parts.session.destroy(error)
    }
  }

  #query(sql: string, options: { readonly signal: AbortSignal }): Promise<Result> {
    return this.#send(Buffer.from(sql), options)
  }

  async #send(sql: Buffer, options: { readonly signal: AbortSignal }): Promise<Result> {
    const [answer] = await exchange(this.#parts.session, [sql], options)
    if (answer instanceof ServerError) throw applyFault(answer, 'apply changes')
    return answer as Result
  }
}

const undoMaxMs = 30_000

function count(into: Written, more: Written): void {
  const sum = into as { rows: number; conflicts: number }
  sum.rows += more.rows
  sum.conflicts += more.conflicts
}

/** Rows that a condition found, changed or not; the server says it in words only. */
function matched({ info }: Result): number {
  return Number(/matched: (\d+)/.exec(info)?.[1] ?? -1)
}

const said = {
  insert: 'a row of its key is there already',
  update: 'the row is not there',
  delete: 'the row is not there',
}

function conflictOf({ table, run, first }: Step, error: ServerError | undefined): Fault {
  const why = error ? `${error.message} (${error.number})` : said[run.kind]
  return new Fault(
    'conflict',
    `apply ${run.kind} to ${table.at} (${nameRow(table, run, first)}): ${why}`,
    {
      hint: 'Somebody else writes to the target: make the row as it is on the source, or choose what is done by --on-conflict.',
      cause: error,
    },
  )
}
