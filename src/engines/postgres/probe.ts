import { isFault } from '#base/faults'
import type { Finding } from '#change/finding'
import type { Use } from '#engines'
import { type Address, openWalSender, type Session } from './connection.ts'
import type { ServerFacts } from './facts.ts'
import { probeChanges } from './probe-changes.ts'
import { probeSource, probeTarget } from './probe-migrate.ts'

/** Replication connections that a use needs beside those that are there: the log, and a base with its slot. */
const sendersWanted: Readonly<Record<Use, number>> = {
  backup: 1,
  protect: 2,
  'protect-strict': 2,
  'migrate-from': 0,
  'migrate-to': 0,
  'sync-to': 0,
  'sync-from': 1,
}
/** The newest major version that the tests have met. */
const testedMajor = 18

type Context = {
  readonly address: Address
  readonly facts: ServerFacts
  readonly session: Session
  readonly use: Use
  readonly signal: AbortSignal
}

/** All that stands in the way of a use, and what mends it. */
export async function probePostgres(context: Context): Promise<Finding[]> {
  if (context.use === 'migrate-from') return probeSource(context)
  if (context.use === 'sync-from') {
    const lacking = await probeChanges(context.session, context.signal)
    return [...(await probeSource(context)), ...lacking]
  }
  if (context.use === 'migrate-to' || context.use === 'sync-to') return probeTarget(context)
  const log = context.use === 'backup' ? [] : await probeLog(context)
  const strict = context.use === 'protect-strict' ? await probeStrict(context) : []
  return [
    ...probeVersion(context.facts),
    ...(await probeRole(context)),
    ...(await probeSenders(context)),
    ...log,
    ...strict,
    ...probeSafety(context.facts),
    ...(await probeData(context)),
  ]
}

function probeVersion(facts: ServerFacts): Finding[] {
  const findings: Finding[] = []
  const major = Math.floor(facts.versionNumber / 10_000)
  if (major > testedMajor) {
    findings.push({
      severity: 'warns',
      code: 'version-untested',
      said: `PostgreSQL ${facts.version} is newer than ${testedMajor}, the newest version tried`,
    })
  }
  if (major < 13) {
    findings.push({
      severity: 'notes',
      code: 'no-manifest',
      said: `PostgreSQL ${facts.version} writes no backup manifest: file checksums cannot be compared`,
    })
  }
  if (facts.standby) {
    findings.push({
      severity: 'notes',
      code: 'standby',
      said: 'the server is a standby: bases are taken from it and its log is followed, heartbeats are not written',
    })
  }
  if (facts.settings['wal_level'] === 'minimal') {
    findings.push({
      severity: 'blocks',
      code: 'wal-level-minimal',
      said: 'wal_level is minimal: the log does not suffice for a backup',
      mend: "ALTER SYSTEM SET wal_level = 'replica'; -- then restart the server",
    })
  }
  return findings
}

async function probeRole(context: Context): Promise<Finding[]> {
  const { address, session, signal } = context
  const [row] = await session.query(
    `select rolname, rolreplication or rolsuper as may from pg_roles where rolname = current_user`,
    { signal, doing: 'read the rights of the role' },
  )
  const role = row?.['rolname'] ?? address.user
  if (row?.['may'] !== 't') {
    return [
      {
        severity: 'blocks',
        code: 'no-replication-right',
        said: `role ${role} may not replicate`,
        mend: `ALTER ROLE "${role.replaceAll('"', '""')}" REPLICATION;`,
      },
    ]
  }
  // None are allowed at all: that is a finding of its own.
  if (context.facts.settings['max_wal_senders'] === '0') return []
  try {
    const wire = await openWalSender(address, { signal })
    wire.close()
    return []
  } catch (error) {
    // `unreachable`: all replication connections are taken, which is told with their number.
    if (isFault(error, 'unreachable')) return []
    if (!isFault(error, 'denied')) throw error
    return [
      {
        severity: 'blocks',
        code: 'replication-refused',
        said: `the server refuses a replication connection: ${error.message}`,
        mend: `hostssl replication ${role} <this host>/32 scram-sha-256    # a line of pg_hba.conf; then SELECT pg_reload_conf();`,
      },
    ]
  }
}

async function probeSenders(context: Context): Promise<Finding[]> {
  const { facts, session, use, signal } = context
  const [row] = await session.query(
    `select (select count(*) from pg_stat_replication where application_name not like 'redoubt%') as senders,
       (select count(*) from pg_replication_slots where slot_name not like 'redoubt%') as slots`,
    { signal, doing: 'count the replication connections' },
  )
  const findings: Finding[] = []
  const sendersMax = Number(facts.settings['max_wal_senders'])
  const slotsMax = Number(facts.settings['max_replication_slots'])
  const wanted = sendersWanted[use]
  if (sendersMax - Number(row?.['senders'] ?? 0) < wanted) {
    findings.push({
      severity: 'blocks',
      code: 'max-wal-senders',
      said: `max_wal_senders is ${sendersMax}, ${row?.['senders']} are taken, ${wanted} are needed`,
      mend: `ALTER SYSTEM SET max_wal_senders = ${Math.max(10, sendersMax + wanted)}; -- then restart the server`,
    })
  }
  if (use !== 'backup' && slotsMax - Number(row?.['slots'] ?? 0) < 1) {
    findings.push({
      severity: 'blocks',
      code: 'max-replication-slots',
      said: `max_replication_slots is ${slotsMax} and ${row?.['slots']} are taken`,
      mend: `ALTER SYSTEM SET max_replication_slots = ${Math.max(10, slotsMax + 2)}; -- then restart the server`,
    })
  }
  return findings
}

async function probeLog(context: Context): Promise<Finding[]> {
  const { facts, session, signal } = context
  const findings: Finding[] = []
  if (facts.settings['max_slot_wal_keep_size'] === '-1') {
    findings.push({
      severity: 'warns',
      code: 'slot-without-limit',
      said: 'max_slot_wal_keep_size is unset: while the archiver is away, the log may fill the disk of the server',
      mend: "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; SELECT pg_reload_conf();",
    })
  }
  const lost = await session.query(
    `select slot_name from pg_replication_slots s
     where slot_name like 'redoubt%' and to_jsonb(s) ->> 'wal_status' = 'lost'`,
    { signal, doing: 'read the replication slots' },
  )
  for (const row of lost) {
    findings.push({
      severity: 'warns',
      code: 'slot-lost',
      said: `replication slot ${row['slot_name']} is lost: the log has a gap, which a new base closes`,
    })
  }
  if (facts.settings['archive_mode'] !== 'off') {
    findings.push({
      severity: 'notes',
      code: 'archive-mode',
      said: `archive_mode is ${facts.settings['archive_mode']}: another archive is written beside ours`,
    })
  }
  return findings
}

// https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
async function probeStrict(context: Context): Promise<Finding[]> {
  const { facts } = context
  const findings: Finding[] = []
  const names = facts.settings['synchronous_standby_names'] ?? ''
  if (facts.standby) {
    findings.push({
      severity: 'blocks',
      code: 'strict-on-standby',
      said: 'commits on a standby wait for nobody: strict needs the primary',
    })
  }
  if (!/(?:^|[\s,("])redoubt_|\*/.test(names)) {
    findings.push({
      severity: 'blocks',
      code: 'not-synchronous',
      said: `synchronous_standby_names is '${names}': commits do not wait for the archiver`,
      mend: "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (redoubt_NAME)'; SELECT pg_reload_conf(); -- NAME as in --name; commits wait from then on, so start protect at once",
    })
  }
  const commit = facts.settings['synchronous_commit'] ?? ''
  if (commit === 'off' || commit === 'local' || commit === 'remote_write') {
    findings.push({
      severity: 'blocks',
      code: 'synchronous-commit',
      said: `synchronous_commit is ${commit}: commits do not wait until the log is stored`,
      mend: "ALTER SYSTEM SET synchronous_commit = 'on'; SELECT pg_reload_conf();",
    })
  }
  return findings
}

function probeSafety(facts: ServerFacts): Finding[] {
  const findings: Finding[] = []
  if (!facts.dataChecksums) {
    findings.push({
      severity: 'warns',
      code: 'no-data-checksums',
      said: 'data checksums are off: a page that rots on disk is backed up unnoticed',
      mend: 'pg_checksums --enable -D DATA    # with the server stopped',
    })
  }
  for (const name of ['full_page_writes', 'fsync']) {
    if (facts.settings[name] !== 'off') continue
    findings.push({
      severity: 'warns',
      code: name.replaceAll('_', '-'),
      said: `${name} is off: a crash of the machine may damage data and log alike`,
      mend: `ALTER SYSTEM SET ${name} = on; SELECT pg_reload_conf();`,
    })
  }
  if (facts.versionNumber >= 170_000 && facts.settings['summarize_wal'] === 'off') {
    findings.push({
      severity: 'notes',
      code: 'no-wal-summaries',
      said: 'summarize_wal is off: every base reads the whole cluster',
      mend: 'ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();',
    })
  }
  return findings
}

async function probeData(context: Context): Promise<Finding[]> {
  const { session, signal } = context
  const [row] = await session.query(
    `select count(*) as count from pg_class where relpersistence = 'u' and relkind in ('r', 'm')`,
    { signal, doing: 'count unlogged tables' },
  )
  const count = Number(row?.['count'] ?? 0)
  if (count === 0) return []
  return [
    {
      severity: 'notes',
      code: 'unlogged-tables',
      said: `${count} unlogged tables in database ${context.address.database}: they come back empty`,
    },
  ]
}
