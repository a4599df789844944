import { isFault } from '#base/faults'
import type { Finding } from '#change/finding'
import type { Schema } from '#change/schema'
import type { Session } from './connection.ts'

/**
 * Triggers that would fire for rows that come: where this user may not silence them, the ordinary ones of tables that are
 * there already; those that are enabled ALWAYS or for replicas in any case.
 * https://www.postgresql.org/docs/current/sql-altertable.html (DISABLE TRIGGER)
 */
export async function checkTriggers(
  session: Session,
  schema: Schema,
  signal: AbortSignal,
): Promise<Finding[]> {
  const wanted = new Set(schema.tables.map((table) => table.target.join('\n')))
  const firing = (await maySilence(session, signal)) ? ['A', 'R'] : ['A', 'O']
  const rows = await session.query(
    `select n.nspname as schema, c.relname as table, format('%I.%I', n.nspname, c.relname) as shown, quote_ident(t.tgname) as name
     from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
     where not t.tgisinternal and t.tgtype & 4 <> 0 and t.tgenabled::text = any($1) order by 3, 4`,
    { signal, values: [firing] },
  )
  return rows.flatMap((row): Finding[] => {
    if (!wanted.has(`${row['schema']}\n${row['table']}`)) return []
    return [
      {
        severity: 'blocks',
        code: 'target-trigger',
        said: `the trigger ${row['name']} of ${row['shown']} on the target would fire for the rows that come`,
        mend: `ALTER TABLE ${row['shown']} DISABLE TRIGGER ${row['name']}; -- and enable it again after the copy`,
      },
    ]
  })
}

/** Whether this user's sessions can write as a replica does. */
export async function maySilence(session: Session, signal: AbortSignal): Promise<boolean> {
  try {
    await session.query(
      "set session_replication_role = 'replica'; reset session_replication_role",
      {
        signal,
      },
    )
    return true
  } catch (error) {
    if (isFault(error, 'denied')) return false
    throw error
  }
}
