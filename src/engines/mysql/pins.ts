import { Fault, isFault } from '#base/faults'
import { type Catalog, hasRows, isTransactional, systemDatabases, type Table } from './catalog.ts'
import { serverErrorNumber } from './protocol/server-error.ts'
import type { Session } from './protocol/session.ts'
import { quoteNames, quotePlain } from './sql.ts'

/** How long tables are kept from schema changes while they are copied: those, and who waits behind them, wait. */
export const pinnedMaxMs = 2_000
/** What can be pinned within a blocked commit, and copied in that time. */
const pinnedTablesMax = 256
const pinnedBytesMax = 64 * 1024 * 1024
const newestMax = 4096
/** Any other engine may have to ask elsewhere to open a table. */
const engines = ['InnoDB', 'RocksDB', 'TokuDB']
const togetherMax = 32
const noSuchTable = 1146

export type TableName = { readonly database: string; readonly name: string }

/** Higher for what was made, altered or emptied later; by the names that are the same in a file system. */
export type Ages = ReadonlyMap<string, number>

/** The tables that were made, altered or emptied last; empty where this user may not ask. */
export async function readNewest(session: Session, signal: AbortSignal): Promise<Ages> {
  try {
    const rows = await session.texts(
      `SELECT NAME, TABLE_ID FROM information_schema.INNODB_SYS_TABLES ORDER BY TABLE_ID DESC LIMIT ${newestMax}`,
      { signal },
    )
    const ages = new Map<string, number>()
    for (const [name, id] of rows) {
      // Of a partitioned table each partition has a number, and the newest comes first.
      const table = (name ?? '').replace(/#p#.*$/i, '')
      if (!ages.has(table)) ages.set(table, Number(id))
    }
    return ages
  } catch (error) {
    if (!isFault(error, 'denied', 'engine')) throw error
    return new Map()
  }
}

/**
 * The tables that a base copies first and keeps as they are until then: all of a small database; of a large one what was
 * changed last and will be so again, as a table is that is emptied and filled over and over.
 */
export function choosePinned(catalog: Catalog, ages: Ages): Table[] {
  const ageOf = ({ database, name }: Table) => ages.get(`${database}/${name}`) ?? 0
  const chosen: Table[] = []
  let leftBytes = pinnedBytesMax
  const tables = catalog.tables.filter((one) => hasRows(one) && isTransactional(one.engine))
  for (const table of tables.toSorted((a, b) => ageOf(b) - ageOf(a) || a.sizeBytes - b.sizeBytes)) {
    if (chosen.length >= pinnedTablesMax) break
    if (table.sizeBytes > leftBytes) continue
    leftBytes -= table.sizeBytes
    chosen.push(table)
  }
  return chosen
}

/** All tables by name alone: of one that somebody holds, the server tells no more. */
export async function readTableNames(session: Session, signal: AbortSignal): Promise<TableName[]> {
  const system = [...systemDatabases].map(quotePlain).join(',')
  const rows = await session.texts(
    `SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE LOWER(TABLE_SCHEMA) NOT IN (${system})
     AND COALESCE(TABLE_TYPE, 'BASE TABLE') IN ('BASE TABLE', 'SYSTEM VERSIONED')
     AND COALESCE(ENGINE, 'InnoDB') IN (${engines.map(quotePlain).join(',')})`,
    { signal },
  )
  return rows.map(([database, name]) => ({ database: database ?? '', name: name ?? '' }))
}

/**
 * Keeps tables as they are until the session's transaction ends or goes back behind this: other statements that would
 * change their definition wait, those that read and write rows do not. Waits for no lock.
 */
export async function pin(
  session: Session,
  tables: readonly TableName[],
  signal: AbortSignal,
): Promise<void> {
  for (let at = 0; at < tables.length; at += togetherMax) {
    const parts = tables
      .slice(at, at + togetherMax)
      .map(({ database, name }) => `(SELECT 1 FROM ${quoteNames(database, name)} LIMIT 0)`)
    const sql = `SET STATEMENT lock_wait_timeout = 0 FOR ${parts.join(' UNION ALL ')}`
    try {
      await session.query(sql, { signal })
    } catch (error) {
      if (!isFault(error, 'timeout')) throw error
      throw new Fault('locked', 'keep tables as they are: one is being changed', { cause: error })
    }
  }
}

/** The same for tables of a list that may be old. */
export async function pinListed(
  session: Session,
  tables: readonly TableName[],
  signal: AbortSignal,
): Promise<void> {
  try {
    await pin(session, tables, signal)
  } catch (error) {
    // One of them is gone by now.
    if (serverErrorNumber(error) !== noSuchTable) throw error
    await pin(session, await readTableNames(session, signal), signal)
  }
}
