import { Fault } from '#base/faults'
import type { ApplyLane, ConflictPolicy, Mark, WriteOptions, Written } from '#change/apply'
import type { Relation, RowRun, Truncation } from '#change/batch'
import type { Result } from '../protocol/packets.ts'
import { ServerError } from '../protocol/server-error.ts'
import type { Session } from '../protocol/session.ts'
import { applyFault, exchange, looseSql, strictSql } from './apply-session.ts'
import type { MysqlApplyTable } from './apply-table.ts'
import { clashCondition, nameRow, readThere, recordConflict } from './conflicts.ts'
import { markSql } from './marks.ts'
import { SqlBuffer } from './sql-buffer.ts'
import { type Step, type StepJob, writeInsert, writeKey, writeSteps } from './row-statements.ts'

/** So much is sent without waiting for answers. */
const sentMaxBytes = 2 * 1024 * 1024
const sentMaxStatements = 64

/** A duplicate key, and rows that foreign keys of other tables hold or miss. */
const conflictNumbers = new Set([1062, 1586, 1761, 1169, 1216, 1217, 1451, 1452, 1557])
const savepoint = Buffer.from('SAVEPOINT redoubt')
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
  /** `foreign_key_checks` of the session, and of what comes next. */
  #follows = false

  constructor(parts: LaneParts) {
    this.#parts = parts
  }

  async write(changes: readonly (RowRun | Truncation)[], options: WriteOptions): Promise<Written> {
    const { several } = this.#parts
    const { converge, signal } = options
    const mode = { converge, settles: !several || options.alone === true, signal }
    const counted = { rows: 0, conflicts: 0 }
    try {
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

  async #run(run: RowRun, mode: Mode, counted: Written): Promise<void> {
    const table = this.#parts.tableOf(run.relation)
    await this.#follow(run.cascades === true && table.isParent, mode, counted)
    const { namesRow } = this.#parts
    const job = { table, run, first: 0, last: run.rows, namesRow, single: false, ...mode }
    for (const step of writeSteps(job, this.#out)) {
      this.#check(step)
      this.#steps.push(step)
      if (this.#out.sizeBytes >= sentMaxBytes || this.#steps.length >= sentMaxStatements) {
        await this.#flush(mode, counted)
      }
    }
  }

  /** Cascades that the log does not have are left to the server; else nothing happens by itself. */
  async #follow(follows: boolean, mode: Mode, counted: Written): Promise<void> {
    if (follows === this.#follows) return
    await this.#flush(mode, counted)
    const sql = `SET SESSION foreign_key_checks = ${follows ? 1 : 0}`
    await this.#query(sql, mode)
    this.#follows = follows
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
    this.#steps = []
    const statements: Buffer[] = [savepoint]
    for (const { start, end, loose } of steps) {
      if (loose) statements.push(Buffer.from(looseSql))
      statements.push(this.#out.view(start, end))
      if (loose) statements.push(Buffer.from(strictSql))
    }
    const answers = await exchange(this.#parts.session, statements, mode)
    this.#out.clear()
    const own = answers.slice(1)
    let at = 0
    let fits = !(answers[0] instanceof ServerError)
    for (const step of steps) {
      const answer = own[at + (step.loose ? 1 : 0)]
      at += step.loose ? 3 : 1
      if (!this.#fits(step, answer)) fits = false
    }
    if (fits) {
      for (const { rows } of steps) count(counted, { rows, conflicts: 0 })
      return
    }
    await this.#query(toSavepoint, mode)
    await this.#again(steps, mode, counted)
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
      case undefined:
        return true
      default:
        return step.expect satisfies never
    }
  }

  async #again(steps: readonly Step[], mode: Mode, counted: Written): Promise<void> {
    const { namesRow } = this.#parts
    for (const { table, run, first, rows } of steps) {
      for (let row = first; row < first + rows; row++) {
        const job = { table, run, first: row, last: row + 1, single: true, namesRow }
        count(counted, await this.#row({ ...job, converge: mode.converge }, mode))
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

  async #one(sql: Buffer, loose: boolean, mode: Mode): Promise<Result | ServerError> {
    const { session } = this.#parts
    if (!loose) {
      const [answer] = await exchange(session, [sql], mode)
      return answer as Result | ServerError
    }
    const all = [Buffer.from(looseSql), sql, Buffer.from(strictSql)]
    const [, answer] = await exchange(session, all, mode)
    return answer as Result | ServerError
  }

  async #settle(step: Step, error: ServerError | undefined, mode: Mode): Promise<Written> {
    const { conflicts, link, session } = this.#parts
    const { table, run, first: row } = step
    if (conflicts === 'stop' || !mode.settles || mode.converge) throw conflictOf(step, error)
    const image = run.kind === 'update' ? 1 : 0
    const condition = run.kind === 'delete' ? undefined : clashCondition(table, run, row, image)
    const there = condition ? await readThere(session, table, condition, mode) : []
    if (error && there.length === 0) throw conflictOf(step, error)
    if (conflicts === 'overwrite') await this.#overwrite(step, condition, mode)
    await recordConflict(session, { table, run, row, there }, { link, settled: conflicts }, mode)
    return { rows: conflicts === 'overwrite' ? 1 : 0, conflicts: 1 }
  }

  /** The source's row takes the place of whatever stands in its way, and comes where it was gone. */
  async #overwrite(step: Step, clash: Buffer | undefined, mode: Mode): Promise<void> {
    const { table, run, first: row } = step
    if (run.kind === 'delete') return
    const { namesRow } = this.#parts
    const last = row + 1
    const job = { table, run, first: row, last, namesRow, single: true, converge: false }
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

  #take({ start, end, loose }: Step, mode: Mode): Promise<Result | ServerError> {
    const sql = Buffer.from(this.#out.view(start, end))
    this.#out.cut(start)
    return this.#one(sql, loose, mode)
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
