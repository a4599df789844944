import { Fault } from '#base/faults'
import type { SourceFacts } from '#engines'
import type { Session } from './connection.ts'
import { formatHistory, parseLsn, toAt } from './lsn.ts'

/** What we know of a connected server. */
export type ServerFacts = {
  readonly systemId: string
  readonly timeline: number
  readonly versionNumber: number
  readonly version: string
  readonly flavor: string
  readonly segmentBytes: number
  readonly dataChecksums: boolean
  readonly standby: boolean
  readonly lsn: bigint | undefined
  readonly sizeBytes: bigint | undefined
  readonly settings: Readonly<Record<string, string>>
}

const shown = [
  'wal_level',
  'max_wal_senders',
  'max_replication_slots',
  'max_slot_wal_keep_size',
  'wal_keep_size',
  'wal_sender_timeout',
  'synchronous_standby_names',
  'synchronous_commit',
  'archive_mode',
  'summarize_wal',
  'full_page_writes',
  'fsync',
  'data_checksums',
  'wal_segment_size',
  'server_version',
  'server_version_num',
  'block_size',
]

export async function readFacts(session: Session, signal: AbortSignal): Promise<ServerFacts> {
  const doing = 'read what the server is'
  const rows = await session.query('select name, setting from pg_settings where name = any($1)', {
    signal,
    values: [shown],
    doing,
  })
  const settings = Object.fromEntries(rows.map((row) => [row['name'] ?? '', row['setting'] ?? '']))
  const [row] = await session.query(
    `select version() as version, pg_is_in_recovery() as standby,
       (select system_identifier from pg_control_system()) as system_id,
       case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())::text
            else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end as timeline,
       case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
            else pg_current_wal_flush_lsn() end as lsn`,
    { signal, doing },
  )
  if (!row) throw new Fault('protocol', `${doing}: no row came`)
  const versionNumber = Number(settings['server_version_num'])
  if (versionNumber < 120_000) {
    throw new Fault('unsupported', `open the server: PostgreSQL ${settings['server_version']}`, {
      hint: 'PostgreSQL 12 and later are supported.',
    })
  }
  const standby = row['standby'] === 't'
  const lsn = row['lsn'] ?? undefined
  return {
    systemId: row['system_id'] ?? '',
    timeline: Number.parseInt(row['timeline'] ?? '', standby ? 10 : 16),
    versionNumber,
    version: (settings['server_version'] ?? '').split(' ')[0] ?? '',
    flavor: /EnterpriseDB/.test(row['version'] ?? '') ? 'edb' : 'postgresql',
    segmentBytes: Number(settings['wal_segment_size']),
    dataChecksums: settings['data_checksums'] === 'on',
    standby,
    lsn: lsn === undefined ? undefined : parseLsn(lsn),
    sizeBytes: await clusterBytes(session, signal),
    settings,
  }
}

// Databases that the role may not connect to cannot be measured by it; they are left out.
async function clusterBytes(session: Session, signal: AbortSignal): Promise<bigint | undefined> {
  const [row] = await session.query(
    `select sum(pg_database_size(oid)) as size from pg_database
     where has_database_privilege(oid, 'CONNECT') or pg_has_role('pg_read_all_stats', 'MEMBER')`,
    { signal },
  )
  const size = row?.['size'] ?? undefined
  return size === undefined ? undefined : BigInt(size)
}

/** The facts in the shape that every engine shows. */
export function toSourceFacts(facts: ServerFacts): SourceFacts {
  const history = formatHistory(facts)
  return {
    engine: 'postgres',
    flavor: facts.flavor,
    version: facts.version,
    history,
    ...(facts.lsn === undefined ? {} : { position: { history, at: toAt(facts.lsn) } }),
    ...(facts.sizeBytes === undefined ? {} : { sizeBytes: facts.sizeBytes }),
    details: {
      ...facts.settings,
      system_identifier: facts.systemId,
      role: facts.standby ? 'standby' : 'primary',
    },
  }
}
