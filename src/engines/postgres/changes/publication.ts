import { Fault } from '#base/faults'
import type { ObjectName } from '#change/schema'
import type { Session } from '../connection.ts'
import { quoteName, quotePath } from '../rows-sql.ts'
import { slotName } from '../slot.ts'

/** What slot and publication of a reader of changes are called. */
export const publicationName = slotName

/** Named in one message at most. */
const namedMax = 5

/**
 * Makes the publication that says whose changes are sent, or brings it to these tables. It must be there before the slot is
 * made: the server looks for it in its catalog as that was at each moment of the log.
 */
export async function makePublication(
  session: Session,
  options: {
    readonly name: string
    readonly tables: readonly ObjectName[]
    readonly signal: AbortSignal
  },
): Promise<void> {
  const { signal } = options
  const name = publicationName(options.name)
  const tables = await publishable(session, options.tables, signal)
  const list =
    tables.length > 0 ? ` table ${tables.map((table) => `only ${table}`).join(', ')}` : ''
  const [there] = await session.query('select from pg_publication where pubname = $1', {
    signal,
    values: [name],
    doing: `look for publication ${name}`,
  })
  const doing = `make publication ${name}`
  if (!there) {
    await session.query(`create publication ${quoteName(name)}${list && ` for${list}`}`, {
      signal,
      doing,
    })
    return
  }
  // Each change of the catalog is a change to whoever compares two moments of the database.
  if (!list || (await hasJust(session, name, tables, signal))) return
  await session.query(`alter publication ${quoteName(name)} set${list}`, { signal, doing })
}

async function hasJust(
  session: Session,
  publication: string,
  tables: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const rows = await session.query(
    `select format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')) as name
     from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
       join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace
     where p.pubname = $1`,
    { signal, values: [publication], doing: `read the tables of publication ${publication}` },
  )
  const has = new Set(rows.map((row) => row['name']))
  return has.size === tables.length && tables.every((table) => has.has(table))
}

/**
 * The tables that can be published, checked before: from the moment that it is published, a table whose rows cannot be named
 * refuses updates and deletes of everybody.
 */
async function publishable(
  session: Session,
  names: readonly ObjectName[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const rows = await session.query(tablesSql, {
    signal,
    values: [names.map((name) => quotePath(name))],
    doing: 'read how the rows of the tables are named',
  })
  const nameless = rows.filter((row) => row['identified'] !== 't').map((row) => row['name'] ?? '')
  if (nameless.length > 0) {
    const [first = ''] = nameless
    throw new Fault(
      'refused',
      `follow the changes of ${nameless.slice(0, namedMax).join(', ')}${nameless.length > namedMax ? `, and ${nameless.length - namedMax} more` : ''}: they have no primary key and no replica identity, so that published they would refuse UPDATE and DELETE`,
      {
        hint: `Give each a primary key, or run ALTER TABLE ${first} REPLICA IDENTITY FULL; or leave them out with --exclude.`,
      },
    )
  }
  return rows.map((row) => row['name'] ?? '')
}

// Temporary and unlogged tables have no changes in the log; large objects are no table.
const tablesSql = `
  select format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')) as name,
    case c.relreplident when 'f' then true when 'n' then false
      when 'i' then exists (select from pg_index i where i.indrelid = c.oid and i.indisreplident)
      else exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary) end as identified
  from unnest($1::text[]) with ordinality as wanted(name, place)
    join pg_namespace n on true
    join pg_class c on c.relnamespace = n.oid
      and format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')) = wanted.name
  where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname <> 'pg_catalog'
  order by place`

/** Removes the publication of a reader, if there is one. */
export async function dropPublication(
  session: Session,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  await session.query(`drop publication if exists ${quoteName(publicationName(name))}`, { signal })
}
