import type { Finding } from '#change/finding'
import type { Use } from '#engines'
import type { Session } from './connection.ts'
import type { ServerFacts } from './facts.ts'
import { maySilence } from './schema-triggers.ts'

type Context = {
  readonly facts: ServerFacts
  readonly session: Session
  readonly use: Use
  readonly signal: AbortSignal
}

/** What a role needs to read all that a database holds, and does not have. */
export async function probeSource({ session, signal }: Context): Promise<Finding[]> {
  const rows = await session.query(unreadableSql, { signal, doing: 'read the rights of the role' })
  return rows.map((row) => ({
    severity: 'blocks',
    code: row['code'] ?? '',
    said: row['said'] ?? '',
    mend: row['mend'] ?? undefined,
  }))
}

const unreadableSql = `
  select 'no-select-right' as code, format('role %s may not read %s tables, the first of them %s', current_user, count(*),
      min(format('%I.%I', n.nspname, c.relname))) as said,
    format('GRANT pg_read_all_data TO %I; -- before PostgreSQL 14: GRANT SELECT on each', current_user) as mend
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
    and not (has_schema_privilege(n.oid, 'USAGE') and has_any_column_privilege(c.oid, 'SELECT'))
  having count(*) > 0
  union all
  select 'row-security', format('%s tables hide rows from role %s by their policies, the first of them %s', count(*), current_user,
      min(format('%I.%I', n.nspname, c.relname))),
    format('ALTER ROLE %I BYPASSRLS;', current_user)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p') and n.nspname not like 'pg\\_%' and row_security_active(c.oid)
  having count(*) > 0
  union all
  select 'no-large-object-right', format('role %s may not read the %s large objects', current_user, count(*)),
    format('ALTER ROLE %I SUPERUSER; -- only superusers read pg_largeobject', current_user)
  from pg_largeobject_metadata where not has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')
  having count(*) > 0`

/** What a target lacks for rows and objects to be written. */
export async function probeTarget({ facts, session, use, signal }: Context): Promise<Finding[]> {
  const findings: Finding[] = []
  const [row] = await session.query(
    `select current_user as role, current_database() as database,
       has_database_privilege(current_database(), 'CREATE') as may_create,
       current_setting('default_transaction_read_only') as read_only`,
    { signal, doing: 'read the rights of the role' },
  )
  if (facts.standby) {
    findings.push({
      severity: 'blocks',
      code: 'target-standby',
      said: 'the target is a standby: nothing can be written there',
    })
  }
  if (row?.['read_only'] === 'on') {
    findings.push({
      severity: 'blocks',
      code: 'target-read-only',
      said: 'default_transaction_read_only is on for this role and database of the target',
      mend: `ALTER DATABASE "${row['database']?.replaceAll('"', '""')}" SET default_transaction_read_only = off;`,
    })
  }
  if (row?.['may_create'] !== 't') {
    findings.push({
      severity: 'blocks',
      code: 'no-create-right',
      said: `role ${row?.['role']} may not create in database ${row?.['database']} of the target`,
      mend: `GRANT CREATE ON DATABASE "${row?.['database']?.replaceAll('"', '""')}" TO "${row?.['role']?.replaceAll('"', '""')}";`,
    })
  }
  if (!facts.standby && !(await maySilence(session, signal))) {
    const role = row?.['role'] ?? ''
    const follows = use === 'sync-to'
    findings.push({
      severity: follows ? 'blocks' : 'notes',
      code: 'no-replica-role',
      said: `role ${role} may not set session_replication_role on the target: ${follows ? 'changes cannot be applied' : 'triggers fire for copied rows'}`,
      mend:
        facts.versionNumber >= 150_000
          ? `GRANT SET ON PARAMETER session_replication_role TO "${role.replaceAll('"', '""')}";`
          : `ALTER ROLE "${role.replaceAll('"', '""')}" SUPERUSER; -- before PostgreSQL 15 only superusers may`,
    })
  }
  return findings
}
