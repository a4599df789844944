import { isFault } from '#base/faults'
import type { Session } from './connection.ts'
import { type DamagedPage, firstBlockOf, PageCheck } from './pages.ts'

// The server reads the page for us where the role may; where it may not, the page stays reported.
export async function isSoundNow(
  session: Session,
  page: DamagedPage,
  signal: AbortSignal,
): Promise<boolean> {
  const block = firstBlockOf(page.path)
  if (block === undefined) return true
  try {
    const [row] = await session.query(
      `select encode(pg_read_binary_file($1, $2::bigint, 8192), 'hex') as page`,
      { signal, values: [page.path, page.page * 8192], doing: `read '${page.path}' again` },
    )
    const bytes = Buffer.from(row?.['page'] ?? '', 'hex')
    const check = new PageCheck(page.path, block + page.page)
    check.feed(bytes)
    return check.damaged.length === 0
  } catch (error) {
    // The relation is gone, or the role may not read files.
    if (isFault(error, 'log-lost', 'missing')) return true
    if (isFault(error, 'denied', 'engine')) return false
    throw error
  }
}

export async function clockUs(session: Session, signal: AbortSignal): Promise<bigint> {
  const sql = 'select (extract(epoch from clock_timestamp()) * 1000000)::bigint as us'
  const [row] = await session.query(sql, { signal })
  return BigInt(row?.['us'] ?? 0)
}

/** What a recovery needs to be set as on the source, and what its replacement configuration starts from. */
const carried = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
  'shared_preload_libraries',
  'wal_level',
  'lc_messages',
  'lc_monetary',
  'lc_numeric',
  'lc_time',
  'default_text_search_config',
  'TimeZone',
]

// A throw-away server is entered as the first superuser, whose name initdb was told.
export async function readSuperuser(session: Session, signal: AbortSignal): Promise<string> {
  const sql = 'select rolname from pg_roles where rolsuper and rolcanlogin order by oid limit 1'
  const [row] = await session.query(sql, { signal })
  return row?.['rolname'] ?? 'postgres'
}

export async function readSettings(session: Session, signal: AbortSignal): Promise<string> {
  const rows = await session.query(
    'select name, setting from pg_settings where name = any($1) order by name',
    { signal, values: [carried] },
  )
  return JSON.stringify(Object.fromEntries(rows.map((row) => [row['name'], row['setting']])))
}
