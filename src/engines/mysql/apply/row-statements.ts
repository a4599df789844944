import { Fault } from '#base/faults'
import { cellAbsent, cellNull, isPatch, type RowRun } from '#change/batch'
import type { ApplyColumn, MysqlApplyTable } from './apply-table.ts'
import type { SqlBuffer } from './sql-buffer.ts'

/** A statement ends where it has so much text, or so many rows. */
const textMaxBytes = 512 * 1024
const rowsMax = 1000
/** The server plans a range for each of these. */
const deleteRowsMax = 200

/** A statement for some rows of a run, and what it has to come to. */
export type Step = {
  /** Its text in the buffer. */
  readonly start: number
  readonly end: number
  readonly table: MysqlApplyTable
  readonly run: RowRun
  readonly first: number
  readonly rows: number
  /**
   * `rows`: each row affected, `twice`: each row updated by an insert, `found`: a row matched, `none`: no row; undefined where
   * it does not matter.
   */
  readonly expect: 'rows' | 'twice' | 'found' | 'none' | undefined
  /** Holds what strict sessions refuse. */
  readonly loose: boolean
  /** Foreign keys of the target are to act on it. */
  readonly follows: boolean
}

export type StepJob = {
  readonly table: MysqlApplyTable
  readonly run: RowRun
  readonly first: number
  readonly last: number
  readonly converge: boolean
  /** Foreign keys of the target are to act as those of the source did, on rows that change or go. */
  readonly follows: boolean
  /** A statement for each row, none that would do something else where a row is gone. */
  readonly single: boolean
  /** The new row of an upsert has a name (MySQL 8.0.19); else its values are asked for by a function. */
  readonly namesRow: boolean
}

/** Writes the statements for rows of a run, one after the other: what stands in the buffer may go between them. */
export function* writeSteps(job: StepJob, out: SqlBuffer): Generator<Step, void, void> {
  const writer = new StepWriter(job, out)
  yield* writer.steps()
}

/** An insert of the row as it came to be; undefined where the log has parts of it only. */
export function writeInsert(job: StepJob, row: number, out: SqlBuffer): Step | undefined {
  return new StepWriter(job, out).insert(row)
}

/** The condition that finds the row as it was. */
export function writeKey(job: StepJob, row: number, out: SqlBuffer): void {
  new StepWriter(job, out).where(row)
}

/** Where an image begins among the cells of a run. */
export function imageAt(run: RowRun, row: number, image: 0 | 1): number {
  const width = run.relation.columns.length * 2
  return (run.kind === 'update' ? row * 2 + image : row) * width
}

/** Writes the value of a cell; it is there. */
export function writeCell(
  out: SqlBuffer,
  { cells, bytes }: RowRun,
  at: number,
  { index, literals }: ApplyColumn,
): void {
  const start = cells[at + index * 2] ?? cellAbsent
  const end = cells[at + index * 2 + 1] ?? 0
  if (start === cellNull) out.ascii('NULL')
  else if (isPatch(end)) literals.patch(out, bytes, start, ~end)
  else literals.value(out, bytes, start, end)
}

/** Whether two cells are there and of the same bytes. */
export function sameCell(a: RowRun, atA: number, b: RowRun, atB: number): boolean {
  const start = a.cells[atA] ?? cellAbsent
  const other = b.cells[atB] ?? cellAbsent
  if (start < 0 || other < 0) return start === other && start === cellNull
  const [end = 0, otherEnd = 0] = [a.cells[atA + 1], b.cells[atB + 1]]
  if (otherEnd - other !== end - start) return false
  return a.bytes.compare(b.bytes, other, otherEnd, start, end) === 0
}

/** What makes an insert change the row that it meets. */
export function onDuplicate(table: MysqlApplyTable, namesRow: boolean): string {
  const key = new Set(table.rowKey)
  const sets = table.columns
    .filter((column) => !key.has(column))
    .map(({ name }) => (namesRow ? `${name}=redoubt_new.${name}` : `${name}=VALUES(${name})`))
  return `${namesRow ? ' AS redoubt_new' : ''} ON DUPLICATE KEY UPDATE ${sets.join(',')}`
}

class StepWriter {
  readonly #job: StepJob
  readonly #out: SqlBuffer
  readonly #width: number

  constructor(job: StepJob, out: SqlBuffer) {
    this.#job = job
    this.#out = out
    this.#width = job.table.relation.columns.length * 2
  }

  *steps(): Generator<Step, void, void> {
    const { run, table, converge } = this.#job
    if (converge && !table.rowKey && !table.isSequence) {
      throw new Fault('unsupported', `apply again to ${table.at}: it has no key to find rows by`, {
        hint: 'Copy this table anew.',
      })
    }
    if (run.kind !== 'insert' && table.relation.before === 'none') {
      throw new Fault('unsupported', `apply to ${table.at}: its rows cannot be found again`)
    }
    if (run.kind === 'insert') return yield* this.#inserts()
    if (run.kind === 'update') return yield* this.#updates()
    yield* this.#deletes()
  }

  insert(row: number): Step | undefined {
    const image = this.#job.run.kind === 'update' ? 1 : 0
    if (image === 1 && !this.#isWhole(this.#image(row, image))) return undefined
    const step = this.#values('INSERT', row, row + 1, image)
    return this.#step(step.start, row, 1, 'rows', step.loose)
  }

  /** Where an image begins among the cells. */
  #image(row: number, image: 0 | 1): number {
    return imageAt(this.#job.run, row, image)
  }

  *#inserts(): Generator<Step, void, void> {
    const { first, last, converge, table } = this.#job
    const verb = converge && !table.isSequence ? 'REPLACE' : 'INSERT'
    let row = first
    while (row < last) {
      const step = this.#values(verb, row, table.isSequence ? row + 1 : last, 0)
      yield this.#step(step.start, row, step.rows, converge ? undefined : 'rows', step.loose)
      row += step.rows
    }
  }

  /** `INSERT INTO ... VALUES` of as many rows as have the same columns and go together. */
  #values(
    verb: 'INSERT' | 'REPLACE',
    first: number,
    last: number,
    image: 0 | 1,
    joins: (row: number) => boolean = () => true,
  ): { readonly start: number; readonly rows: number; readonly loose: boolean } {
    const out = this.#out
    const start = out.sizeBytes
    const { table, single } = this.#job
    const head = this.#image(first, image)
    const columns = table.columns.filter((column) => this.#cell(head, column) !== cellAbsent)
    out.raw(
      Buffer.from(
        `${verb} INTO ${table.at} (${columns.map(({ name }) => name).join(',')}) VALUES `,
      ),
    )
    let row = first
    for (; row < last; row++) {
      const at = this.#image(row, image)
      const loose = this.#isLoose(at)
      const more = row > first
      if (more && (loose || single || row - first >= rowsMax || !joins(row))) break
      if (more && (out.sizeBytes - start > textMaxBytes || !this.#sameColumns(head, at))) break
      out.ascii(more ? ',(' : '(')
      for (const [index, column] of columns.entries()) {
        if (index > 0) out.ascii(',')
        this.#value(at, column)
      }
      out.ascii(')')
      if (loose) return { start, rows: 1, loose }
    }
    return { start, rows: row - first, loose: false }
  }

  #sameColumns(a: number, b: number): boolean {
    const { cells } = this.#job.run
    for (let index = 0; index < this.#width; index += 2) {
      if ((cells[a + index] === cellAbsent) !== (cells[b + index] === cellAbsent)) return false
    }
    return true
  }

  *#updates(): Generator<Step, void, void> {
    const { table, first, last, converge } = this.#job
    let row = first
    while (row < last) {
      if (converge) row += yield* this.#convergeUpdate(row)
      else if (this.#canUpsert(row)) {
        const step = this.#values('INSERT', row, last, 1, (next) => this.#canUpsert(next))
        this.#out.raw(Buffer.from(onDuplicate(table, this.#job.namesRow)))
        yield this.#step(step.start, row, step.rows, 'twice', false)
        row += step.rows
      } else {
        yield this.#update(row)
        row += 1
      }
    }
  }

  /**
   * Many rows at once by the only unique key that there is: an insert of each must meet its row. What it cannot say are parts of
   * rows and new keys.
   */
  #canUpsert(row: number): boolean {
    const { table, single } = this.#job
    if (single || this.#job.follows || !table.rowKey || table.uniqueKeys.length !== 1) return false
    if (table.columns.length === table.rowKey.length) return false
    const at = this.#image(row, 1)
    return this.#isWhole(at) && !this.#isLoose(at) && this.#keepsKey(row)
  }

  #isWhole(at: number): boolean {
    const { run, table } = this.#job
    return table.columns.every(
      ({ index }) =>
        run.cells[at + index * 2] !== cellAbsent && !isPatch(run.cells[at + index * 2 + 1] ?? 0),
    )
  }

  #keepsKey(row: number): boolean {
    const { table } = this.#job
    const before = this.#image(row, 0)
    const after = this.#image(row, 1)
    return (table.rowKey ?? []).every(({ index }) => this.#same(before, after, index))
  }

  #same(before: number, after: number, index: number): boolean {
    const { run } = this.#job
    return sameCell(run, before + index * 2, run, after + index * 2)
  }

  /**
   * The row as it came to be, whatever is there; returns how many rows were done. Where keys change it is for the server to say
   * whether the row is there under its old one.
   */
  *#convergeUpdate(row: number): Generator<Step, number, void> {
    const { last, follows } = this.#job
    const whole = (one: number) => this.#isWhole(this.#image(one, 1)) && this.#keepsKey(one)
    if (follows || !whole(row)) {
      yield this.#update(row)
      return 1
    }
    const step = this.#values('REPLACE', row, last, 1, whole)
    yield this.#step(step.start, row, step.rows, undefined, step.loose)
    return step.rows
  }

  #update(row: number): Step {
    const { table } = this.#job
    const out = this.#out
    const start = out.sizeBytes
    const before = this.#image(row, 0)
    const after = this.#image(row, 1)
    out.raw(Buffer.from(`UPDATE ${table.at} SET `))
    let count = 0
    for (const column of table.columns) {
      if (this.#cell(after, column) === cellAbsent) continue
      // What becomes the present time by itself is said each time.
      if (!column.target.follows && this.#same(before, after, column.index)) continue
      if (count++ > 0) out.ascii(',')
      out.raw(Buffer.from(`${column.name}=`))
      this.#value(after, column)
    }
    if (count === 0) {
      const name = table.columns[0]?.name ?? ''
      out.raw(Buffer.from(`${name}=${name}`))
    }
    out.ascii(' WHERE ')
    this.where(row)
    return this.#step(start, row, 1, 'found', this.#isLoose(after))
  }

  *#deletes(): Generator<Step, void, void> {
    const { table, first, last, single, converge } = this.#job
    const key = table.rowKey
    let row = first
    while (row < last) {
      const start = this.#out.sizeBytes
      this.#out.raw(Buffer.from(`DELETE FROM ${table.at} WHERE `))
      const most = key && !single ? Math.min(last, row + deleteRowsMax) : row + 1
      const [only] = key ?? []
      if (key?.length === 1 && only) this.#deleteList(only, row, most)
      else {
        for (let one = row; one < most; one++) {
          if (one > row) this.#out.ascii(' OR ')
          this.where(one)
        }
      }
      yield this.#step(start, row, most - row, converge ? undefined : 'rows', false)
      row = most
    }
  }

  #deleteList(key: ApplyColumn, first: number, last: number): void {
    const out = this.#out
    out.raw(Buffer.from(`${key.name} IN (`))
    for (let row = first; row < last; row++) {
      if (row > first) out.ascii(',')
      this.#value(this.#keyImage(row, key), key)
    }
    out.ascii(')')
  }

  #keyImage(row: number, key: ApplyColumn): number {
    const at = this.#image(row, 0)
    if (this.#cell(at, key) !== cellAbsent) return at
    const { table } = this.#job
    throw new Fault(
      'different',
      `apply to ${table.at}: the log does not tell ${key.name} of a row`,
      {
        hint: 'The keys of source and target differ: set binlog_row_image = FULL on the source, or make them equal.',
      },
    )
  }

  /** By its key; without one, by all that is known of it, and then only one of those that are alike. */
  where(row: number): void {
    const { table, run } = this.#job
    const out = this.#out
    if (table.rowKey) {
      out.ascii('(')
      for (const [index, column] of table.rowKey.entries()) {
        out.raw(Buffer.from(`${index > 0 ? ' AND ' : ''}${column.name}=`))
        this.#value(this.#keyImage(row, column), column)
      }
      return out.ascii(')')
    }
    const at = this.#image(row, 0)
    let count = 0
    for (const column of table.columns) {
      const start = this.#cell(at, column)
      if (start === cellAbsent) continue
      if (count++ > 0) out.ascii(' AND ')
      if (start === cellNull) out.raw(Buffer.from(`${column.name} IS NULL`))
      else {
        const end = run.cells[at + column.index * 2 + 1] ?? 0
        column.literals.matches(out, run.bytes, start, end)
      }
    }
    out.ascii(' LIMIT 1')
  }

  #cell(at: number, { index }: ApplyColumn): number {
    return this.#job.run.cells[at + index * 2] ?? cellAbsent
  }

  #value(at: number, column: ApplyColumn): void {
    writeCell(this.#out, this.#job.run, at, column)
  }

  #isLoose(at: number): boolean {
    const { run, table } = this.#job
    return table.enums.some(({ index, literals }) => {
      const start = run.cells[at + index * 2] ?? cellAbsent
      return start >= 0 && literals.isLoose(run.bytes, start, run.cells[at + index * 2 + 1] ?? 0)
    })
  }

  #step(start: number, first: number, rows: number, expect: Step['expect'], loose: boolean): Step {
    const { table, run } = this.#job
    // What is put in has no children yet; what is replaced keeps its own.
    const follows = this.#job.follows && (expect === 'found' || run.kind === 'delete')
    return { start, end: this.#out.sizeBytes, table, run, first, rows, expect, loose, follows }
  }
}
