import type { Chunk as CopyChunk } from '#change/copy'
import { Fault } from '#base/faults'
import type { Table } from './catalog.ts'
import { type Chunk, conditionOf, planChunks } from './chunks.ts'
import type { Flavor } from './flavor.ts'
import type { Session } from './protocol/session.ts'
import { quoteName, quoteNames, quoteText } from './sql.ts'

/** More rows than so many times the wanted number make a chunk that is cut again. */
const crowded = 2
/** Chunks of one table at most: what is denser stays together. */
const chunksMax = 100_000

type Options = {
  readonly index: number
  readonly chunkBytes: number
  readonly signal: AbortSignal
}

/**
 * Cuts a table along its primary key into chunks of about so many bytes. Borders of numbers are computed from the ends of
 * the key, and where the server's index says that a chunk holds far more than its share, it is cut again: a key with
 * holes, or a far end that holds nearly all rows, would else make one chunk of everything.
 */
export async function planCopy(
  session: Session,
  flavor: Flavor,
  table: Table,
  options: Options,
): Promise<CopyChunk[]> {
  const { index, chunkBytes, signal } = options
  const sized = { ...table, ...(await readSize(session, flavor, table, signal)) }
  const rowBytes = Math.max(1, sized.sizeBytes / Math.max(1, sized.rowsGuess))
  const rowsWanted = Math.max(1, Math.floor(chunkBytes / rowBytes))
  const first = await planChunks(session, sized, { targetBytes: chunkBytes, signal })
  const pieces = await refine(session, sized, first, rowsWanted, signal)
  const sizeBytes = Math.ceil(sized.sizeBytes / pieces.length)
  return pieces.map(({ from, to }, at) => ({
    table: index,
    index: at,
    sizeBytes,
    range: formatRange({ from, to }),
  }))
}

export function formatRange(range: Pick<Chunk, 'from' | 'to'>): string {
  return JSON.stringify({ from: range.from, to: range.to })
}

export function parseRange(text: string): Chunk {
  try {
    return { index: 0, from: undefined, to: undefined, ...(JSON.parse(text) as Partial<Chunk>) }
  } catch (error) {
    throw new Fault('corrupt', `read chunk ${text}: it is no range`, { cause: error })
  }
}

/** MySQL 8 and later remember these figures for a day. */
async function readSize(
  session: Session,
  flavor: Flavor,
  table: Table,
  signal: AbortSignal,
): Promise<Pick<Table, 'rowsGuess' | 'sizeBytes'>> {
  if (flavor.family === 'mysql' && flavor.number >= 80_000) {
    await session.query('SET SESSION information_schema_stats_expiry = 0', { signal })
  }
  const row = await session.one(
    `SELECT COALESCE(TABLE_ROWS, 0), COALESCE(DATA_LENGTH, 0) FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = ${quoteText(table.database)} AND TABLE_NAME = ${quoteText(table.name)}
     AND CAST(TABLE_NAME AS BINARY) = CAST(${quoteText(table.name)} AS BINARY)`,
    { signal },
  )
  if (!row) return table
  return { rowsGuess: Number(row[0]), sizeBytes: Number(row[1]) }
}

async function refine(
  session: Session,
  table: Table,
  chunks: readonly Chunk[],
  rowsWanted: number,
  signal: AbortSignal,
): Promise<readonly Chunk[]> {
  const key = table.keyHead
  const borders = chunks.slice(1).map((chunk) => chunk.from)
  if (!key || !borders.every((border) => border !== undefined && /^-?\d+$/.test(border)))
    return chunks
  const isNumber = /^(?:tiny|small|medium|big)?int$/.test(key.type)
  if (!isNumber || table.rowsGuess < rowsWanted * crowded) return chunks
  const name = quoteName(key.name)
  const from = quoteNames(table.database, table.name)
  const ends = await session.one(`SELECT MIN(${name}), MAX(${name}) FROM ${from}`, { signal })
  if (!ends?.[0] || !ends[1]) return chunks
  const [least, most] = [BigInt(ends[0]), BigInt(ends[1])]
  const done: Counted[] = []
  const left = [...chunks].reverse()
  for (let chunk = left.pop(); chunk; chunk = left.pop()) {
    const low = chunk.from === undefined ? least : BigInt(chunk.from)
    const high = chunk.to === undefined ? most + 1n : BigInt(chunk.to)
    const mayCut = high - low > 1n && done.length + left.length < chunksMax
    const rows = await estimate(session, table, chunk, signal)
    if (mayCut && rows > rowsWanted * crowded) {
      const middle = (low + (high - low) / 2n).toString()
      left.push({ ...chunk, from: middle }, { ...chunk, to: middle })
    } else join(done, { ...chunk, rows }, rowsWanted)
  }
  return done
}

type Counted = Chunk & { readonly rows: number }

/** A chunk that is small together with the one before it is none of its own. */
function join(done: Counted[], chunk: Counted, rowsWanted: number): void {
  const last = done.at(-1)
  if (last && last.rows + chunk.rows <= rowsWanted) {
    done[done.length - 1] = { ...last, to: chunk.to, rows: last.rows + chunk.rows }
  } else done.push(chunk)
}

/** What the index says, by two dives. */
async function estimate(
  session: Session,
  table: Table,
  chunk: Chunk,
  signal: AbortSignal,
): Promise<number> {
  const where = conditionOf(table, chunk)
  if (where === undefined) return table.rowsGuess
  // Where an index is forced MySQL asks it nothing.
  const from = `${quoteNames(table.database, table.name)} USE INDEX (PRIMARY)`
  const { columns, rows } = await session.query(
    `EXPLAIN FORMAT=TRADITIONAL SELECT 1 FROM ${from} WHERE ${where}`,
    {
      signal,
    },
  )
  const at = columns.indexOf('rows')
  return Number(rows[0]?.[at]?.toString() ?? 0)
}
