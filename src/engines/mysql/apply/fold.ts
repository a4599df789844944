import { cellAbsent, cellNull, isPatch, type RowRun } from '#change/batch'
import type { ApplyColumn, MysqlApplyTable } from './apply-table.ts'
import { imageAt, onDuplicate, type Step, sameCell, writeCell } from './row-statements.ts'
import type { SqlBuffer } from './sql-buffer.ts'

const textMaxBytes = 512 * 1024
const rowsMax = 1000
const deleteRowsMax = 200

/** A row of a run. */
type Place = { readonly run: RowRun; readonly row: number }

/** What became of one key. */
type Entry = {
  /** The row that was there before, to be deleted. */
  gone: Place | undefined
  /** The row that was there before, to be changed. */
  was: Place | undefined
  /** What the row is in the end: its image after. */
  put: Place | undefined
  /** Any change of it, for its key. */
  readonly seen: Place
}

/**
 * Changes of many transactions that are committed as one: of each key what it was and what it became, as few statements for
 * many rows. Deletes go first, then what is new, then what changed. Another order than the source's can fail only in another
 * unique key, and then loudly: whoever runs these takes them back and goes row by row.
 */
export class Fold {
  readonly #out: SqlBuffer
  readonly #namesRow: boolean
  readonly #tables = new Map<MysqlApplyTable, Map<string, Entry>>()

  constructor(out: SqlBuffer, options: { readonly namesRow: boolean }) {
    this.#out = out
    this.#namesRow = options.namesRow
  }

  /** Whether rows of a table can be folded at all. */
  static takes(table: MysqlApplyTable): boolean {
    const { rowKey, isSequence, relation, columns } = table
    if (isSequence || relation.before !== 'full' || !rowKey) return false
    return columns.length > rowKey.length
  }

  /** False for a row that has to go by itself, behind all that was taken of its table. */
  add(table: MysqlApplyTable, run: RowRun, row: number): boolean {
    if (!isPlain(table, run, row) || this.#isElsewhere(table)) return false
    const entries = this.#tables.get(table) ?? new Map<string, Entry>()
    this.#tables.set(table, entries)
    const place = { run, row }
    if (run.kind === 'insert') return put(entries, keyOf(table, run, row, 0), place)
    const before = keyOf(table, run, row, 0)
    if (run.kind === 'delete') return remove(entries, before, place)
    const after = keyOf(table, run, row, 1)
    if (after === before) return change(entries, before, place)
    return remove(entries, before, place) && put(entries, after, place)
  }

  /** Rows of the same table came in another form. */
  #isElsewhere(table: MysqlApplyTable): boolean {
    if (this.#tables.has(table)) return false
    return [...this.#tables.keys()].some(({ at }) => at === table.at)
  }

  /** The statements for what was taken; of one table or of all. */
  *steps(only?: string): Generator<Step, void, void> {
    for (const [table, entries] of this.#tables) {
      if (only !== undefined && table.at !== only) continue
      this.#tables.delete(table)
      yield* this.#table(table, [...entries.values()])
    }
  }

  *#table(table: MysqlApplyTable, entries: readonly Entry[]): Generator<Step, void, void> {
    const gone = entries.flatMap((entry) => entry.gone ?? [])
    yield* this.#deletes(table, gone, 'rows')
    const never = entries.filter(({ gone: old, was, put: now }) => !old && !was && !now)
    const seen = never.map((entry) => entry.seen)
    yield* this.#deletes(table, seen, 'none')
    const fresh = entries.filter((entry) => !entry.was).flatMap((entry) => entry.put ?? [])
    yield* this.#puts(table, fresh, 'rows')
    const changed = entries.filter((entry) => entry.was && entry.put)
    const many = table.uniqueKeys.length === 1
    const upserts = changed.filter((entry) => many && !isSame(table, entry))
    yield* this.#puts(
      table,
      upserts.flatMap((entry) => entry.put ?? []),
      'twice',
    )
    for (const entry of changed) if (!many || isSame(table, entry)) yield this.#update(table, entry)
  }

  *#deletes(
    table: MysqlApplyTable,
    places: readonly Place[],
    expect: 'rows' | 'none',
  ): Generator<Step, void, void> {
    const [only, ...more] = table.rowKey ?? []
    for (let first = 0; first < places.length; first += deleteRowsMax) {
      const some = places.slice(first, first + deleteRowsMax)
      const start = this.#out.sizeBytes
      const isList = only && more.length === 0
      this.#text(`DELETE FROM ${table.at} WHERE ${isList ? `${only.name} IN (` : ''}`)
      for (const [index, place] of some.entries()) {
        if (isList) {
          if (index > 0) this.#out.ascii(',')
          writeCell(this.#out, place.run, imageAt(place.run, place.row, 0), only)
        } else this.#key(table, place, index > 0 ? ' OR ' : '')
      }
      if (isList) this.#out.ascii(')')
      yield this.#step(start, table, some, expect)
    }
  }

  #key(table: MysqlApplyTable, { run, row }: Place, lead: string): void {
    for (const [index, column] of (table.rowKey ?? []).entries()) {
      this.#text(`${index > 0 ? ' AND ' : `${lead}(`}${column.name}=`)
      writeCell(this.#out, run, imageAt(run, row, 0), column)
    }
    this.#out.ascii(')')
  }

  *#puts(
    table: MysqlApplyTable,
    places: readonly Place[],
    expect: 'rows' | 'twice',
  ): Generator<Step, void, void> {
    const names = table.columns.map(({ name }) => name).join(',')
    for (let at = 0; at < places.length; ) {
      const start = this.#out.sizeBytes
      const first = at
      this.#text(`INSERT INTO ${table.at} (${names}) VALUES `)
      for (; at < places.length && at - first < rowsMax; at++) {
        if (this.#out.sizeBytes - start > textMaxBytes) break
        const place = places[at]
        if (place) this.#row(table, place, at > first ? ',(' : '(')
      }
      if (expect === 'twice') this.#text(onDuplicate(table, this.#namesRow))
      yield this.#step(start, table, places.slice(first, at), expect)
    }
  }

  #row(table: MysqlApplyTable, { run, row }: Place, lead: string): void {
    this.#out.ascii(lead)
    const at = imageAt(run, row, run.kind === 'update' ? 1 : 0)
    for (const [index, column] of table.columns.entries()) {
      if (index > 0) this.#out.ascii(',')
      writeCell(this.#out, run, at, column)
    }
    this.#out.ascii(')')
  }

  #update(table: MysqlApplyTable, { was, put: now }: Entry): Step {
    const start = this.#out.sizeBytes
    this.#text(`UPDATE ${table.at} SET `)
    let count = 0
    for (const column of table.columns) {
      if (!was || !now || (!column.target.follows && isSameCell(was, now, column))) continue
      this.#text(`${count++ > 0 ? ',' : ''}${column.name}=`)
      writeCell(this.#out, now.run, imageAt(now.run, now.row, 1), column)
    }
    const name = table.columns[0]?.name ?? ''
    if (count === 0) this.#text(`${name}=${name}`)
    this.#out.ascii(' WHERE ')
    if (was) this.#key(table, was, '')
    return this.#step(start, table, was ? [was] : [], 'found')
  }

  #text(text: string): void {
    this.#out.raw(Buffer.from(text))
  }

  #step(
    start: number,
    table: MysqlApplyTable,
    places: readonly Place[],
    expect: Step['expect'],
  ): Step {
    const [first] = places
    if (!first) throw new Error('broken invariant: a statement for no row')
    const facts = { run: first.run, first: first.row, rows: places.length }
    return {
      start,
      end: this.#out.sizeBytes,
      table,
      ...facts,
      expect,
      loose: false,
      follows: false,
    }
  }
}

function put(entries: Map<string, Entry>, key: string, place: Place): boolean {
  const known = entries.get(key)
  if (!known) entries.set(key, { gone: undefined, was: undefined, put: place, seen: place })
  else if (known.put || known.was) return false
  else known.put = place
  return true
}

function change(entries: Map<string, Entry>, key: string, place: Place): boolean {
  const known = entries.get(key)
  if (!known) entries.set(key, { gone: undefined, was: place, put: place, seen: place })
  else if (!known.put) return false
  else known.put = place
  return true
}

function remove(entries: Map<string, Entry>, key: string, place: Place): boolean {
  const known = entries.get(key)
  if (!known) entries.set(key, { gone: place, was: undefined, put: undefined, seen: place })
  else if (!known.put) return false
  else {
    known.gone ??= known.was
    known.was = undefined
    known.put = undefined
  }
  return true
}

/** Its images have all that is written, as values. */
function isPlain(table: MysqlApplyTable, run: RowRun, row: number): boolean {
  const at = imageAt(run, row, run.kind === 'update' ? 1 : 0)
  const { cells, bytes } = run
  for (const { index, literals } of table.columns) {
    const start = cells[at + index * 2] ?? cellAbsent
    const end = cells[at + index * 2 + 1] ?? 0
    if (start === cellAbsent || isPatch(end)) return false
    if (start !== cellNull && literals.isLoose(bytes, start, end)) return false
  }
  return true
}

/** The bytes of a key, which tell rows apart at least as finely as the target does. */
function keyOf(table: MysqlApplyTable, run: RowRun, row: number, image: 0 | 1): string {
  const at = imageAt(run, row, image)
  const key = table.rowKey ?? []
  let text = ''
  for (const { index } of key) {
    const start = run.cells[at + index * 2] ?? 0
    const end = run.cells[at + index * 2 + 1] ?? 0
    if (key.length > 1) text += `${end - start}:`
    text += run.bytes.toString('latin1', start, end)
  }
  return text
}

/** Whether a row came back to what it was: an upsert could not tell whether it is there. */
function isSame(table: MysqlApplyTable, { was, put: now }: Entry): boolean {
  if (!was || !now) return false
  return table.columns.every((column) => isSameCell(was, now, column))
}

function isSameCell(was: Place, now: Place, { index }: ApplyColumn): boolean {
  const before = imageAt(was.run, was.row, 0)
  const after = imageAt(now.run, now.row, now.run.kind === 'update' ? 1 : 0)
  return sameCell(was.run, before + index * 2, now.run, after + index * 2)
}
