import type { TableShape } from '#change/schema'
import type { Session } from './connection.ts'
import { isLargeObjects, quotePath } from './rows-sql.ts'

/**
 * Tables with a column whose binary form means something on its own server only: names of objects as oids, arrays and
 * composites that hold oids of types which the server gave out, types of extensions, and what has no binary form.
 */
export async function textOnlyTables(
  session: Session,
  tables: readonly TableShape[],
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const rows = await session.query(textOnlySql, {
    signal,
    doing: 'read the types of the columns',
  })
  const all = new Set(rows.map((row) => row['name'] ?? ''))
  const names = tables.filter((table) => !isLargeObjects(table.name))
  return new Set(names.map((table) => quotePath(table.name)).filter((name) => all.has(name)))
}

// Oids below 16384 are the same on every server. `inside` goes from a type to those that its bytes are made of; what is said
// of one by `bad` holds for all that are made of it. An empty tsquery is sent in a form that no server takes.
const textOnlySql = `
  with recursive
  inside(oid, part, named) as (
    select t.oid, t.typbasetype, false from pg_type t where t.typtype = 'd'
    union all select t.oid, t.typelem, true from pg_type t where t.typcategory = 'A' and t.typelem <> 0
    union all select t.oid, a.atttypid, true from pg_type t join pg_attribute a on a.attrelid = t.typrelid
      where t.typtype = 'c' and a.attnum > 0 and not a.attisdropped
    union all select r.rngtypid, r.rngsubtype, false from pg_range r
    union all select (to_jsonb(r) ->> 'rngmultitypid')::oid, r.rngsubtype, false from pg_range r
      where to_jsonb(r) ? 'rngmultitypid'
  ),
  bad(oid) as (
    select t.oid from pg_type t
    where t.typsend = 0 or t.typreceive = 0 or t.typname in ('xml', 'tsquery')
      or (t.typname like 'reg%' and t.oid < 16384)
      or (t.typtype = 'b' and t.typcategory <> 'A' and t.oid >= 16384)
    union
    select i.oid from inside i where i.named and i.part >= 16384
    union
    select i.oid from bad b join inside i on i.part = b.oid
  )
  select format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')) as name
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and exists (select from pg_attribute a join bad b on b.oid = a.atttypid
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '')`
