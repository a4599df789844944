import { cellAbsent, cellNull, isPatch, type RowRun } from '#change/batch'
import type { Session } from '../protocol/session.ts'
import { quoteText } from '../sql.ts'
import { createCellReader, type ReadCell } from '../values.ts'
import type { ApplyColumn, MysqlApplyTable } from './apply-table.ts'
import { conflictTable } from './marks.ts'
import { SqlBuffer } from './sql-buffer.ts'

type Options = { readonly signal: AbortSignal }
type Value = string | null | { readonly hex: string }
type Image = Record<string, Value>

/** What a row of the log ran into. */
export type Conflict = {
  readonly table: MysqlApplyTable
  readonly run: RowRun
  readonly row: number
  /** The rows of the target that stand in its way. */
  readonly there: readonly Image[]
}

const readers = new WeakMap<MysqlApplyTable, readonly ReadCell[]>()

/** An image of the log as JSON: texts as they are, bytes in hexadecimal, without what the log does not tell. */
export function readImage(table: MysqlApplyTable, run: RowRun, row: number, image: 0 | 1): Image {
  const { columns } = table.relation
  const read = readers.get(table) ?? columns.map((column) => createCellReader(column))
  readers.set(table, read)
  const at = (run.kind === 'update' ? row * 2 + image : row) * columns.length * 2
  const values: Image = {}
  for (const [index, column] of columns.entries()) {
    const start = run.cells[at + index * 2] ?? cellAbsent
    const end = run.cells[at + index * 2 + 1] ?? 0
    if (start === cellAbsent || isPatch(end)) continue
    const value = start === cellNull ? null : read[index]?.(run.bytes, start, end)
    values[column.name] = Buffer.isBuffer(value) ? { hex: value.toString('hex') } : (value ?? null)
  }
  return values
}

/** The key of a row of the log, in words. */
export function nameRow(table: MysqlApplyTable, run: RowRun, row: number): string {
  const image = readImage(table, run, row, 0)
  const key = table.rowKey ?? table.columns
  const parts = key.map(({ index, target }) => {
    const value = image[table.relation.columns[index]?.name ?? '']
    const text = value === null || typeof value === 'string' ? value : value && `0x${value.hex}`
    return `${target.name} = ${text === undefined ? '?' : text === null ? 'NULL' : shorten(text)}`
  })
  return parts.slice(0, 8).join(', ')
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}...` : text
}

/** The condition that finds what an image clashes with in any unique key; undefined where it can clash with nothing. */
export function clashCondition(
  table: MysqlApplyTable,
  run: RowRun,
  row: number,
  image: 0 | 1,
): Buffer | undefined {
  const out = new SqlBuffer()
  const at = (run.kind === 'update' ? row * 2 + image : row) * table.relation.columns.length * 2
  for (const key of table.uniqueKeys) {
    if (!key || !key.every((column) => isThere(run, at, column))) continue
    out.ascii(out.sizeBytes === 0 ? '(' : ' OR (')
    for (const [index, { index: cell, name, literals }] of key.entries()) {
      out.raw(Buffer.from(`${index > 0 ? ' AND ' : ''}${name}=`))
      const start = run.cells[at + cell * 2] ?? cellAbsent
      literals.value(out, run.bytes, start, run.cells[at + cell * 2 + 1] ?? 0)
    }
    out.ascii(')')
  }
  return out.sizeBytes === 0 ? undefined : Buffer.from(out.view(0, out.sizeBytes))
}

function isThere(run: RowRun, at: number, { index }: ApplyColumn): boolean {
  return (
    (run.cells[at + index * 2] ?? cellAbsent) >= 0 && !isPatch(run.cells[at + index * 2 + 1] ?? 0)
  )
}

const shownMax = 20

/** The rows of the target that meet a condition, locked. */
export async function readThere(
  session: Session,
  table: MysqlApplyTable,
  condition: Buffer,
  options: Options,
): Promise<Image[]> {
  const list = table.columns.map(({ name, target }) => shown(name, target)).join(', ')
  const sql = Buffer.concat([
    Buffer.from(`SELECT ${list} FROM ${table.at} WHERE `),
    condition,
    Buffer.from(` LIMIT ${shownMax} FOR UPDATE`),
  ])
  const { rows } = await session.query(sql, options, `read ${table.at}`)
  return rows.map((row) => {
    const values: Image = {}
    for (const [index, { target }] of table.columns.entries()) {
      const cell = row[index]
      const text = cell?.toString('utf8') ?? null
      values[target.name] = text !== null && isBytes(target.word) ? { hex: text } : text
    }
    return values
  })
}

function isBytes(word: string): boolean {
  return /binary|blob|^bit$|geom|point|polygon|line|vector|uuid|inet/.test(word)
}

function shown(name: string, { word, charset }: ApplyColumn['target']): string {
  if (isBytes(word)) return `LOWER(HEX(${name}))`
  return charset === undefined ? `CAST(${name} AS CHAR)` : `CONVERT(${name} USING utf8mb4)`
}

/** Notes a conflict where users can read it, in the transaction that settles it. */
export async function recordConflict(
  session: Session,
  { table, run, row, there }: Conflict,
  { link, settled }: { readonly link: string; readonly settled: string },
  options: Options,
): Promise<void> {
  const before = run.kind === 'insert' ? undefined : readImage(table, run, row, 0)
  const after =
    run.kind === 'delete' ? undefined : readImage(table, run, row, run.kind === 'insert' ? 0 : 1)
  const json = (value: unknown) => (value === undefined ? 'NULL' : quoteText(JSON.stringify(value)))
  const facts = [link, table.relation.name.join('.'), run.kind, settled].map(quoteText)
  const [name, ...rest] = facts
  await session.query(
    `INSERT INTO ${conflictTable} (link, noted_at, table_name, kind, settled, source_before, source_after, target_rows)
     VALUES (${name}, UTC_TIMESTAMP(6), ${rest.join(', ')}, ${json(before)}, ${json(after)}, ${json(there)})`,
    options,
    'note a conflict',
  )
}
