import { Fault, isFault } from '#base/faults'
import { type Catalog, hasRows, isTransactional, systemDatabases } from './catalog.ts'
import { serverErrorNumber } from './protocol/server-error.ts'
import type { Session } from './protocol/session.ts'
import { quoteNames, quotePlain } from './sql.ts'

/** How long a small database is kept from schema changes while it is copied: they, and who waits behind them, wait. */
export const pinnedMaxMs = 2_000
const smallTablesMax = 256
/** What can be copied in that time. */
const smallBytesMax = 64 * 1024 * 1024
const togetherMax = 32
const noSuchTable = 1146
/** Any other engine may have to ask elsewhere to open a table. */
const engines = ['InnoDB', 'RocksDB', 'TokuDB']

export type TableName = { readonly database: string; readonly name: string }

/** Whether all tables can be copied within the time of a pin, and pinned within that of a blocked commit. */
export function isSmall(catalog: Catalog): boolean {
  const sizeBytes = catalog.tables.reduce((sum, table) => sum + table.sizeBytes, 0)
  return catalog.tables.length <= smallTablesMax && sizeBytes <= smallBytesMax
}

/** The tables of which InnoDB has rows, as far as nobody is changing them at this moment. */
export function pinnable(catalog: Catalog): TableName[] {
  return catalog.tables.filter((table) => hasRows(table) && isTransactional(table.engine))
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
