import type { KeyColumn, Table } from './catalog.ts'
import type { Session } from './protocol/session.ts'
import { quoteName, quoteNames } from './sql.ts'

/** About so many bytes of rows make one file: the unit of work of a copy and of a restore. */
export const chunkTargetBytes = 64 * 1024 * 1024
const chunksMax = 100_000

/** One file's share of a table: the rows with key >= `from` and < `to`, as SQL literals. */
export type Chunk = {
  readonly index: number
  readonly from: string | undefined
  readonly to: string | undefined
}

const integers = new Set(['tinyint', 'smallint', 'mediumint', 'int', 'bigint'])
const texts = new Set(['char', 'varchar'])
const bytes = new Set(['binary', 'varbinary'])
const quoted = new Set(['date', 'datetime', 'timestamp', 'decimal', 'uuid'])

/**
 * Cuts a table by the first column of its primary key. Borders on integers are multiples of a power of two, so that
 * they stay where they are while the table grows, and unchanged files of the next base are found again by their content.
 */
export async function planChunks(
  session: Session,
  table: Table,
  options: { readonly targetBytes: number; readonly signal: AbortSignal },
): Promise<Chunk[]> {
  const { targetBytes, signal } = options
  const key = table.keyHead
  if (!key || table.sizeBytes < targetBytes * 1.5) return [whole]
  const rows = Math.max(1, table.rowsGuess)
  const rowBytes = Math.max(1, table.sizeBytes / rows)
  const chunkRows = Math.max(1, Math.floor(targetBytes / rowBytes))
  if (integers.has(key.type)) return byNumber(session, table, key, chunkRows, signal)
  if (literal(key, Buffer.alloc(0)) === undefined) return [whole]
  return byWalk(session, table, key, chunkRows, signal)
}

const whole: Chunk = { index: 0, from: undefined, to: undefined }

async function byNumber(
  session: Session,
  table: Table,
  key: KeyColumn,
  chunkRows: number,
  signal: AbortSignal,
): Promise<Chunk[]> {
  const name = quoteName(key.name)
  const from = quoteNames(table.database, table.name)
  const row = await session.one(`SELECT MIN(${name}), MAX(${name}) FROM ${from}`, { signal })
  if (!row?.[0] || !row[1]) return [whole]
  return cutNumbers(BigInt(row[0]), BigInt(row[1]), table.rowsGuess, chunkRows)
}

/** Pure: borders at multiples of the largest power of two that holds at most `chunkRows` at an even density. */
export function cutNumbers(min: bigint, max: bigint, rows: number, chunkRows: number): Chunk[] {
  const span = max - min + 1n
  const wanted = (span * BigInt(chunkRows)) / BigInt(Math.max(1, rows))
  let step = 1n
  while (step * 2n <= wanted || span / step > BigInt(chunksMax)) step *= 2n
  const borders: string[] = []
  for (let border = floor(min, step) + step; border <= max; border += step) {
    borders.push(border.toString())
  }
  return between(borders)
}

function floor(value: bigint, step: bigint): bigint {
  const rest = value % step
  return value - (rest < 0n ? rest + step : rest)
}

async function byWalk(
  session: Session,
  table: Table,
  key: KeyColumn,
  chunkRows: number,
  signal: AbortSignal,
): Promise<Chunk[]> {
  const name = quoteName(key.name)
  const from = `${quoteNames(table.database, table.name)} FORCE INDEX (PRIMARY)`
  const borders: string[] = []
  while (borders.length < chunksMax) {
    const last = borders.at(-1)
    const where = last === undefined ? '' : ` WHERE ${name} > ${last}`
    const sql = `SELECT ${name} FROM ${from}${where} ORDER BY ${name} LIMIT 1 OFFSET ${chunkRows}`
    const { rows } = await session.query(sql, { signal })
    const cell = rows[0]?.[0]
    const border = cell ? literal(key, cell) : undefined
    if (border === undefined) break
    borders.push(border)
  }
  return between(borders)
}

function between(borders: readonly string[]): Chunk[] {
  return [...borders, undefined].map((to, index) => ({ index, from: borders[index - 1], to }))
}

/** A key's bytes as a literal that compares as the column does; undefined for types that are not cut. */
function literal(key: KeyColumn, cell: Buffer): string | undefined {
  const hex = cell.length === 0 ? "''" : `0x${cell.toString('hex')}`
  if (texts.has(key.type)) return key.charset ? `_${key.charset} ${hex}` : undefined
  if (bytes.has(key.type)) return hex
  return quoted.has(key.type) ? `'${cell.toString('latin1')}'` : undefined
}

/** A chunk as a condition; undefined for all rows. */
export function conditionOf(table: Table, chunk: Chunk): string | undefined {
  if (!table.keyHead) return undefined
  const name = quoteName(table.keyHead.name)
  const parts = [
    ...(chunk.from === undefined ? [] : [`${name} >= ${chunk.from}`]),
    ...(chunk.to === undefined ? [] : [`${name} < ${chunk.to}`]),
  ]
  return parts.length === 0 ? undefined : parts.join(' AND ')
}
