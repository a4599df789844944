import type { SourceFacts } from '#engines'
import { systemDatabases } from './catalog.ts'
import type { Flavor } from './flavor.ts'
import { fileNumber, formatPlace } from './position.ts'
import type { Session } from './protocol/session.ts'
import { readGtids, readHistory, readLogEnd, readLogFiles, readVariables } from './server.ts'
import { isFault } from '#base/faults'

const shown = [
  'binlog_format',
  'binlog_row_image',
  'binlog_checksum',
  'sync_binlog',
  'innodb_flush_log_at_trx_commit',
  'gtid_mode',
  'expire_logs_days',
  'binlog_expire_logs_seconds',
  'read_only',
  'server_id',
]

/** What the server is, for `inspect` and for the vault's record of the source. */
export async function readFacts(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<SourceFacts> {
  const history = await readHistory(session, flavor, signal)
  const variables = await readVariables(session, [...shown, 'log_bin'], signal)
  const hasLog = variables.get('log_bin') === 'ON'
  const details: Record<string, string> = { log_bin: hasLog ? 'ON' : 'OFF' }
  for (const name of shown) {
    const value = variables.get(name)
    if (value !== undefined && value !== '') details[name] = value
  }
  const log = hasLog ? await readLog(session, flavor, signal) : undefined
  if (log) Object.assign(details, log.details)
  return {
    engine: 'mysql',
    flavor: flavor.family,
    version: flavor.version,
    history,
    position: log && { history, at: log.at },
    sizeBytes: await readSize(session, signal),
    details,
  }
}

/** Where the log ends; undefined where this user may not ask. */
async function readLog(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<{ at: string; details: Record<string, string> } | undefined> {
  try {
    const end = await readLogEnd(session, flavor, signal)
    if (!end) return undefined
    const files = await readLogFiles(session, signal)
    const at = formatPlace({ file: fileNumber(end.name), offset: end.offset })
    const details = {
      'log end': `${end.name}:${end.offset}`,
      'log files': `${files.length} from ${files[0]?.name ?? ''}`,
      gtids: await readGtids(session, flavor, signal),
    }
    return { at, details }
  } catch (error) {
    if (!isFault(error, 'denied')) throw error
    return undefined
  }
}

async function readSize(session: Session, signal: AbortSignal): Promise<bigint> {
  const row = await session.one(
    `SELECT CAST(COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS UNSIGNED) FROM information_schema.TABLES
     WHERE TABLE_SCHEMA NOT IN (${[...systemDatabases].map((name) => `'${name}'`).join(',')})`,
    { signal },
  )
  return BigInt(row?.[0] ?? '0')
}
