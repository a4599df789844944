import type { Mark } from '#change/apply'
import { isFault } from '#base/faults'
import { ownDatabase } from '../copy-marks.ts'
import { serverErrorNumber } from '../protocol/server-error.ts'
import type { Session } from '../protocol/session.ts'
import { quoteText } from '../sql.ts'

const marks = `${ownDatabase}.applied_mark`
const intents = `${ownDatabase}.statement_intent`
/** Where users read what became of changes that did not fit. */
export const conflictTable = `${ownDatabase}.apply_conflict`

const tables: readonly (readonly [name: string, columns: string])[] = [
  [
    marks,
    `link VARBINARY(255) NOT NULL, lane INT NOT NULL, history VARBINARY(255) NOT NULL, low VARBINARY(255) NOT NULL,
     beyond LONGBLOB NOT NULL, marked_at DATETIME(6) NOT NULL, PRIMARY KEY (link, lane)`,
  ],
  [
    intents,
    `link VARBINARY(255) NOT NULL PRIMARY KEY, history VARBINARY(255) NOT NULL, low VARBINARY(255) NOT NULL,
     digest CHAR(64) NOT NULL, before_digest CHAR(64) NOT NULL, ran TINYINT NOT NULL`,
  ],
  [
    conflictTable,
    `id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, link VARBINARY(255) NOT NULL, noted_at DATETIME(6) NOT NULL,
     table_name VARBINARY(512) NOT NULL, kind VARBINARY(16) NOT NULL, settled VARBINARY(16) NOT NULL,
     source_before LONGTEXT, source_after LONGTEXT, target_rows LONGTEXT`,
  ],
]

type Options = { readonly signal: AbortSignal }

/** The mark of definitions, which no lane brings. */
export const definitionLane = -1

export async function openMarks(session: Session, options: Options): Promise<void> {
  await session.query(`CREATE DATABASE IF NOT EXISTS ${ownDatabase}`, options)
  for (const [name, columns] of tables) {
    const charset = 'DEFAULT CHARACTER SET utf8mb4'
    const sql = `CREATE TABLE IF NOT EXISTS ${name} (${columns}) ENGINE = InnoDB ${charset}`
    await session.query(sql, options)
  }
}

/** In the transaction that brings what it tells of. */
export function markSql(link: string, lane: number, { low, beyond }: Mark): string {
  const values = [low.history, low.at, JSON.stringify(beyond)].map(quoteText).join(', ')
  return `REPLACE INTO ${marks} VALUES (${quoteText(link)}, ${lane}, ${values}, UTC_TIMESTAMP(6))`
}

/** What all lanes say together: the highest place that any of them knew, and what was committed behind it. */
export async function readMark(
  session: Session,
  link: string,
  options: Options,
): Promise<Mark | undefined> {
  const rows = await session.texts(
    `SELECT history, low, beyond FROM ${marks} WHERE link = ${quoteText(link)} ORDER BY marked_at DESC`,
    options,
  )
  const [newest] = rows
  if (!newest) return undefined
  // Places of an older history are all before those of the newest: its first one was reached by way of them.
  const history = newest[0] ?? ''
  const own = rows.filter((row) => row[0] === history)
  const at = own.map((row) => row[1] ?? '').reduce((a, b) => (a > b ? a : b))
  const beyond = own
    .flatMap((row) => JSON.parse(row[2] ?? '[]') as string[])
    .filter((one) => one > at)
  return { low: { history, at }, beyond: [...new Set(beyond)].toSorted() }
}

/** The last statement: about to be run, or run, and how what it changes looked before. */
export type Intent = {
  readonly history: string
  readonly low: string
  readonly digest: string
  readonly before: string
  readonly ran: boolean
}

export async function readIntent(
  session: Session,
  link: string,
  options: Options,
): Promise<Intent | undefined> {
  const row = await session.one(
    `SELECT history, low, digest, before_digest, ran FROM ${intents} WHERE link = ${quoteText(link)}`,
    options,
  )
  if (!row) return undefined
  const [history, low, digest, before, ran] = row
  return {
    history: history ?? '',
    low: low ?? '',
    digest: digest ?? '',
    before: before ?? '',
    ran: ran === '1',
  }
}

export async function noteIntent(
  session: Session,
  link: string,
  { history, low, digest, before }: Omit<Intent, 'ran'>,
  options: Options,
): Promise<void> {
  const values = [link, history, low, digest, before].map(quoteText).join(', ')
  await session.query(`REPLACE INTO ${intents} VALUES (${values}, 0)`, options)
}

/**
 * The mark of a statement that ran, or was not to be run. Where rows follow it in its transaction the mark does not pass it:
 * what was noted of it tells that it ran, should it come again.
 */
export async function markDefinition(
  session: Session,
  link: string,
  mark: Mark,
  options: Options,
): Promise<void> {
  await session.query('START TRANSACTION', options)
  await session.query(`UPDATE ${intents} SET ran = 1 WHERE link = ${quoteText(link)}`, options)
  await session.query(markSql(link, definitionLane, mark), options)
  await session.query('COMMIT', options)
}

const noTableNumbers = new Set([1146, 1049])

/** Takes away what is kept for a link; what it noted of conflicts stays for whoever reads it. */
export async function forgetApply(session: Session, link: string, options: Options): Promise<void> {
  try {
    for (const table of [marks, intents]) {
      await session.query(`DELETE FROM ${table} WHERE link = ${quoteText(link)}`, options)
    }
    const left = await session.one(`SELECT COUNT(*) FROM ${marks}`, options)
    if (left?.[0] !== '0') return
    await session.query(`DROP TABLE IF EXISTS ${marks}, ${intents}`, options)
    const noted = await session.one(`SELECT COUNT(*) FROM ${conflictTable}`, options)
    if (noted?.[0] === '0') await session.query(`DROP TABLE IF EXISTS ${conflictTable}`, options)
    const tablesLeft = await session.one(
      `SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '${ownDatabase}'`,
      options,
    )
    if (tablesLeft?.[0] === '0') await session.query(`DROP DATABASE ${ownDatabase}`, options)
  } catch (error) {
    const number = serverErrorNumber(error)
    if (!isFault(error, 'engine') || number === undefined || !noTableNumbers.has(number))
      throw error
  }
}
