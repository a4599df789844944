import type { Finding } from '#change/finding'
import type { Session } from './connection.ts'

/** A slot for the link, and one more for a copy that is resumed. */
const slotsWanted = 2

/** What a source lacks for its changes to be read, beside what its rows need. */
export async function probeChanges(session: Session, signal: AbortSignal): Promise<Finding[]> {
  const rows = await session.query(lackingSql, { signal, doing: 'look for what changes need' })
  return rows.map((row) => ({
    severity: row['severity'] === 'notes' ? 'notes' : 'blocks',
    code: row['code'] ?? '',
    said: row['said'] ?? '',
    mend: row['mend'] ?? undefined,
  }))
}

// Servers of some clouds give the right by a role of their own.
const lackingSql = `
  select 'blocks' as severity, 'wal-level' as code, format('wal_level is %s: changes are not in the log in full', setting) as said,
    'ALTER SYSTEM SET wal_level = ''logical''; -- then restart the server' as mend
  from pg_settings where name = 'wal_level' and setting <> 'logical'
  union all
  select 'blocks', 'no-replication-right', format('role %s may not make replication slots', current_user),
    format('ALTER ROLE %I REPLICATION;', current_user)
  from pg_roles where rolname = current_user and not (rolsuper or rolreplication)
    and not exists (select from pg_roles r where r.rolname in ('rds_replication', 'cloudsqlreplica') and pg_has_role(r.oid, 'member'))
  union all
  select 'blocks', 'no-publication-right', format('role %s may not make a publication in database %s', current_user, current_database()),
    format('GRANT CREATE ON DATABASE %I TO %I;', current_database(), current_user)
  where not has_database_privilege(current_database(), 'CREATE') and not pg_is_in_recovery()
  union all
  select 'blocks', 'no-free-slot', format('max_replication_slots is %s, and %s slots are there: ${slotsWanted} more are needed', setting, used),
    format('ALTER SYSTEM SET max_replication_slots = %s; -- then restart the server', used + ${slotsWanted})
  from pg_settings, (select count(*) as used from pg_replication_slots) slots
  where name = 'max_replication_slots' and setting::int < used + ${slotsWanted}
  union all
  select 'notes', 'slot-limit', format('max_slot_wal_keep_size is %s MB: a link that rests while more log is written is lost', setting),
    'ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf(); -- if the disk has room for the longest rest'
  from pg_settings where name = 'max_slot_wal_keep_size' and setting::bigint >= 0`
