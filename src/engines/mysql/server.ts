import type { Flavor } from './flavor.ts'
import type { Session } from './protocol/session.ts'
import { quoteName, quotePlain } from './sql.ts'

export type LogFile = { readonly name: string; readonly sizeBytes: number }

/**
 * What makes positions of this server comparable: MySQL's server UUID. MariaDB has none; the number of its domain and
 * its own tell servers of one topology apart.
 */
export async function readHistory(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<string> {
  if (flavor.family === 'mysql') {
    const row = await session.one('SELECT @@global.server_uuid', { signal })
    return row?.[0] ?? ''
  }
  const row = await session.one('SELECT @@global.gtid_domain_id, @@global.server_id', { signal })
  return `mariadb-${row?.[0]}-${row?.[1]}`
}

/** The binary log files that the server still has, oldest first. */
export async function readLogFiles(session: Session, signal: AbortSignal): Promise<LogFile[]> {
  const rows = await session.texts('SHOW BINARY LOGS', { signal })
  return rows.map(([name, size]) => ({ name: name ?? '', sizeBytes: Number(size) }))
}

/** Whether a table of just this name is there. */
export async function hasTable(
  session: Session,
  { database, name }: { readonly database: string; readonly name: string },
  signal: AbortSignal,
): Promise<boolean> {
  const pattern = quotePlain(name.replaceAll(/[\\%_]/g, '\\$&'))
  const sql = `SHOW TABLES FROM ${quoteName(database)} LIKE ${pattern}`
  return (await session.texts(sql, { signal })).some(([found]) => found === name)
}

/** Where the binary log ends; undefined where there is none. */
export async function readLogEnd(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<{ readonly name: string; readonly offset: number } | undefined> {
  const row = await session.one(flavor.logStatus, { signal })
  if (!row?.[0]) return undefined
  return { name: row[0], offset: Number(row[1]) }
}

/** Reads system variables by their bare names; those that the server does not know are left out. */
export async function readVariables(
  session: Session,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const list = names.map((name) => `'${name}'`).join(',')
  const sql = `SHOW GLOBAL VARIABLES WHERE Variable_name IN (${list})`
  const rows = await session.texts(sql, { signal })
  return new Map(rows.map(([name, value]) => [name?.toLowerCase() ?? '', value ?? '']))
}

/** All transactions of which the server knows, as its own text. */
export async function readGtids(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<string> {
  const name = flavor.family === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos'
  const variables = await readVariables(session, [name], signal)
  return (variables.get(name) ?? '').replaceAll(/\s/g, '')
}

/** The same with what came by replication and is in no log of the server's own. */
export async function readAllGtids(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<string> {
  if (flavor.family === 'mysql') return readGtids(session, flavor, signal)
  const row = await session.one('SELECT @@global.gtid_current_pos, @@global.gtid_binlog_pos', {
    signal,
  })
  return (row ?? []).filter(Boolean).join(',')
}
