import { Fault, isFault } from '#base/faults'
import { beatDatabase } from './beat.ts'
import type { LoadedChunk } from '#change/copy'
import { serverErrorNumber } from './protocol/server-error.ts'
import type { Session } from './protocol/session.ts'
import { quoteText } from './sql.ts'

/** Where a link notes on the target what it did there; the same database that holds heartbeats. */
export const ownDatabase = beatDatabase
const chunks = `${ownDatabase}.copied_chunk`
const made = `${ownDatabase}.made_object`
const settings = `${ownDatabase}.target_setting`

const duplicateNumber = 1062
/** The index of a mark that says: this table is being emptied. */
const clearing = -1

const tables: readonly (readonly [name: string, columns: string])[] = [
  [
    chunks,
    `link VARBINARY(255) NOT NULL, table_index INT NOT NULL, chunk_index INT NOT NULL, run INT NOT NULL,
     \`rows\` BIGINT UNSIGNED NOT NULL, PRIMARY KEY (link, table_index, chunk_index)`,
  ],
  [made, 'id VARBINARY(600) NOT NULL PRIMARY KEY, digest CHAR(64) NOT NULL'],
  [settings, 'name VARCHAR(64) NOT NULL PRIMARY KEY, value VARCHAR(255) NOT NULL'],
]

type Options = { readonly signal: AbortSignal }

/** Makes the notes' database and tables where they are not there yet. */
export async function openNotes(session: Session, options: Options): Promise<void> {
  await session.query(`CREATE DATABASE IF NOT EXISTS ${ownDatabase}`, options)
  for (const [name, columns] of tables) {
    const sql = `CREATE TABLE IF NOT EXISTS ${name} (${columns}) ENGINE = InnoDB`
    await session.query(sql, options)
  }
}

export async function readChunks(
  session: Session,
  link: string,
  options: Options,
): Promise<{ readonly loaded: LoadedChunk[]; readonly clearing: number[] }> {
  const rows = await session.texts(
    `SELECT table_index, chunk_index, run, \`rows\` FROM ${chunks} WHERE link = ${quoteText(link)} ORDER BY 1, 2`,
    options,
  )
  const marks = rows.map(([table, index, run, count]) => ({
    table: Number(table),
    index: Number(index),
    run: Number(run),
    rows: BigInt(count ?? 0),
  }))
  return {
    loaded: marks.filter((mark) => mark.index !== clearing),
    clearing: marks.filter((mark) => mark.index === clearing).map((mark) => mark.table),
  }
}

/** In the transaction that brings the chunk's rows, first of all: whoever else brought them is found before they come twice. */
export async function markChunk(
  session: Session,
  link: string,
  chunk: LoadedChunk,
  options: Options,
): Promise<void> {
  const values = [chunk.table, chunk.index, chunk.run, chunk.rows].join(', ')
  try {
    await session.query(`INSERT INTO ${chunks} VALUES (${quoteText(link)}, ${values})`, options)
  } catch (error) {
    if (serverErrorNumber(error) !== duplicateNumber) throw error
    throw isMarked(chunk, error)
  }
}

function isMarked(chunk: LoadedChunk, cause?: unknown): Fault {
  const said = `mark chunk ${chunk.index} of table ${chunk.table}: its rows are on the target already`
  return new Fault('conflict', said, { cause })
}

/** Refuses a chunk that is on the target. */
export async function checkUnmarked(
  session: Session,
  link: string,
  chunk: LoadedChunk,
  options: Options,
): Promise<void> {
  if (await session.one(`SELECT 1 FROM ${chunks} WHERE ${keyOf(link, chunk)}`, options)) {
    throw isMarked(chunk)
  }
}

/** When its rows are there. */
export async function countChunk(
  session: Session,
  link: string,
  chunk: LoadedChunk,
  options: Options,
): Promise<void> {
  const sql = `UPDATE ${chunks} SET \`rows\` = ${chunk.rows} WHERE ${keyOf(link, chunk)}`
  await session.query(sql, options)
}

function keyOf(link: string, { table, index }: LoadedChunk): string {
  return `link = ${quoteText(link)} AND table_index = ${table} AND chunk_index = ${index}`
}

/** From now on nobody takes the table's chunks for loaded, also when its rows are still there. */
export async function beginClear(
  session: Session,
  link: string,
  table: number,
  options: Options,
): Promise<void> {
  const key = `link = ${quoteText(link)} AND table_index = ${table}`
  await session.query('START TRANSACTION', options)
  await session.query(`DELETE FROM ${chunks} WHERE ${key}`, options)
  await markChunk(session, link, { table, index: clearing, run: 0, rows: 0n }, options)
  await session.query('COMMIT', options)
}

export async function endClear(
  session: Session,
  link: string,
  table: number,
  options: Options,
): Promise<void> {
  const sql = `DELETE FROM ${chunks} WHERE link = ${quoteText(link)} AND table_index = ${table} AND chunk_index = ${clearing}`
  await session.query(sql, options)
}

/** What was made, or was about to be when a link was killed, by its digest; undefined when nothing was noted. */
export async function readMade(
  session: Session,
  id: string,
  options: Options,
): Promise<string | undefined> {
  const row = await session.one(`SELECT digest FROM ${made} WHERE id = ${quoteText(id)}`, options)
  return row?.[0] ?? undefined
}

/** All digests by their objects' ids; none where nothing was ever noted. */
export async function readAllMade(
  session: Session,
  options: Options,
): Promise<ReadonlyMap<string, string>> {
  try {
    const rows = await session.texts(`SELECT id, digest FROM ${made}`, options)
    return new Map(rows.map(([id, digest]) => [id ?? '', digest ?? '']))
  } catch (error) {
    if (!isFault(error, 'engine', 'denied')) throw error
    return new Map()
  }
}

/** Before the object is made: should we be killed then, the one that is there is ours. */
export async function noteMade(
  session: Session,
  id: string,
  digest: string,
  options: Options,
): Promise<void> {
  await session.query(`REPLACE INTO ${made} VALUES (${quoteText(id)}, '${digest}')`, options)
}

/** What the target was set to before a link changed it: there only while one runs, or after it was killed. */
export async function readSettings(
  session: Session,
  options: Options,
): Promise<Map<string, string>> {
  const rows = await session.texts(`SELECT name, value FROM ${settings}`, options)
  return new Map(rows.map(([name, value]) => [name ?? '', value ?? '']))
}

export async function noteSetting(
  session: Session,
  name: string,
  value: string,
  options: Options,
): Promise<void> {
  const sql = `INSERT IGNORE INTO ${settings} VALUES (${quoteText(name)}, ${quoteText(value)})`
  await session.query(sql, options)
}

export async function forgetSetting(
  session: Session,
  name: string,
  options: Options,
): Promise<void> {
  await session.query(`DELETE FROM ${settings} WHERE name = ${quoteText(name)}`, options)
}

/** A link is done: its marks go, and with the last of them the tables. */
export async function forgetLink(session: Session, link: string, options: Options): Promise<void> {
  await session.query(`DELETE FROM ${chunks} WHERE link = ${quoteText(link)}`, options)
  const others = await session.one(`SELECT COUNT(*) FROM ${chunks}`, options)
  if (others?.[0] !== '0') return
  await session.query(`DROP TABLE IF EXISTS ${chunks}, ${made}`, options)
}

/** After the settings are back: nothing of ours stays but what others keep there. */
export async function closeNotes(session: Session, options: Options): Promise<void> {
  const there = await session.texts(
    `SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '${ownDatabase}'`,
    options,
  )
  const names = there.map(([name]) => name)
  if (names.includes('copied_chunk')) return
  if ((await session.one(`SELECT COUNT(*) FROM ${settings}`, options))?.[0] !== '0') return
  await session.query(`DROP TABLE ${settings}`, options)
  if (names.length === 1) await session.query(`DROP DATABASE ${ownDatabase}`, options)
}
