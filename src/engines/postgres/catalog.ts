import {
  partCommentsSql,
  policySql,
  ruleSql,
  settingsSql,
  statisticsSql,
  triggerSql,
} from './catalog-parts.ts'
import type { Session } from './connection.ts'

/** A table to be brought back, as the scratch server's catalog has it. */
export type Table = {
  readonly oid: string
  readonly schema: string
  readonly name: string
  /** Quoted, with its schema. */
  readonly full: string
  readonly kind: 'r' | 'p'
  /** Columns that hold data: generated ones are left out. */
  readonly columns: readonly string[]
}

/** A statement that makes something, and what that is, for the report when it cannot be made. */
export type Statement = {
  readonly what: string
  readonly sql: string
  /** What must have been made by this restore for the statement to apply; undefined when nothing must. */
  readonly about?: string | undefined
}

/** The schema-qualified name of an object, quoted. */
export async function listTables(session: Session, signal: AbortSignal): Promise<Table[]> {
  const rows = await session.query(
    `select c.oid, n.nspname, c.relname, c.relkind, format('%I.%I', n.nspname, c.relname) as full_name,
       (select json_agg(quote_ident(a.attname) order by a.attnum) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as columns
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and c.relpersistence <> 't'
       and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     order by c.relispartition, c.oid`,
    { signal, doing: 'list the tables' },
  )
  return rows.map((row) => ({
    oid: row['oid'] ?? '',
    schema: row['nspname'] ?? '',
    name: row['relname'] ?? '',
    full: row['full_name'] ?? '',
    kind: row['relkind'] === 'p' ? 'p' : 'r',
    columns: JSON.parse(row['columns'] ?? '[]') as string[],
  }))
}

/** What must stand before the rows come: schemas, types, sequences, functions, tables. */
export async function beforeRows(
  session: Session,
  tables: readonly Table[],
  whole: boolean,
  signal: AbortSignal,
): Promise<Statement[]> {
  const oids = tables.map((table) => table.oid)
  const schemas = [...new Set(tables.map((table) => table.schema))]
  const read = (sql: string, values: readonly unknown[] = [oids]) =>
    statements(session, sql, values, signal)
  return [
    ...(whole ? await read(schemaSql, []) : await read(namedSchemaSql, [schemas])),
    ...(whole ? await read(extensionSql, []) : []),
    ...(await read(enumSql(whole))),
    ...(await read(domainSql(whole))),
    ...(await read(rangeSql(whole))),
    ...(await read(compositeSql(whole))),
    ...(await read(sequenceSql(whole))),
    ...(whole ? await read(functionSql, []) : []),
    ...(await read(tableSql)),
  ]
}

/** What is made once the rows are there, the quickest way: indexes, constraints, sequences' values, triggers, views, comments. */
export async function afterRows(
  session: Session,
  tables: readonly Table[],
  whole: boolean,
  signal: AbortSignal,
): Promise<Statement[]> {
  const oids = tables.map((table) => table.oid)
  const read = (sql: string, values: readonly unknown[] = [oids]) =>
    statements(session, sql, values, signal)
  const views = whole ? await session.query(viewOidsSql, { signal }) : []
  const relations = [...oids, ...views.map((row) => row['oid'])]
  return [
    ...(await read(indexSql)),
    ...(await read(constraintSql)),
    ...(await read(ownedSql)),
    ...(await read(sequenceStateSql(whole))),
    ...(await read(foreignKeySql)),
    ...(whole ? await read(viewSql, []) : []),
    ...(whole ? await read(indexSql, [views.map((row) => row['oid'])]) : []),
    ...(await read(statisticsSql)),
    ...(await read(triggerSql, [relations])),
    ...(await read(ruleSql, [relations])),
    ...(await read(policySql)),
    ...(await read(settingsSql, [relations])),
    ...(await read(partCommentsSql, [relations])),
  ]
}

/** Runs a query of `what`, `sql` and perhaps `about`. */
export async function statements(
  session: Session,
  sql: string,
  values: readonly unknown[],
  signal: AbortSignal,
): Promise<Statement[]> {
  const rows = await session.query(sql, { signal, values, doing: 'read the catalog' })
  return rows.map((row) => ({
    what: row['what'] ?? '',
    sql: row['sql'] ?? '',
    about: row['about'] ?? undefined,
  }))
}

/** Not an extension's, and no part of something else, as the constructors of a range are: those come with it. */
export const notOurs = (catalog: string, oid: string) =>
  `not exists (select from pg_depend x where x.classid = '${catalog}'::regclass and x.objid = ${oid} and x.deptype in ('e', 'i'))`

export const userSchema = (column: string) =>
  `${column} not like 'pg\\_%' and ${column} <> 'information_schema'`

const schemaSql = `
  select 'schema ' || nspname as what, format('create schema %I', nspname) as sql
  from pg_namespace n where ${userSchema('nspname')} and ${notOurs('pg_namespace', 'n.oid')}`

const namedSchemaSql = `
  select 'schema ' || s as what, format('create schema %I', s) as sql from unnest($1::text[]) s`

const extensionSql = `
  select 'extension ' || extname as what,
    format('create extension if not exists %I with schema %I', extname, nspname) as sql
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where extname <> 'plpgsql'`

/** Types that the columns use, their arrays and what domains are made of included; or all there are. */
export const usedTypes = (whole: boolean) =>
  whole
    ? 'true'
    : `t.oid in (
        with recursive used(oid) as (
          select atttypid from pg_attribute where attrelid = any($1::oid[]) and attnum > 0 and not attisdropped
          union
          select x from used u join pg_type p on p.oid = u.oid
            left join pg_attribute a on a.attrelid = p.typrelid and p.typrelid <> 0 and a.attnum > 0
            cross join lateral (values (p.typelem), (p.typbasetype), (a.atttypid)) v(x) where x <> 0
        ) select oid from used)`

// In the whole case the parameter is not used, but must have a type.
const anyParameter = '$1::oid[] is not null'

const enumSql = (whole: boolean) => `
  select 'type ' || format('%I.%I', n.nspname, t.typname) as what,
    format('create type %I.%I as enum (%s)', n.nspname, t.typname,
      (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder) from pg_enum where enumtypid = t.oid)) as sql
  from pg_type t join pg_namespace n on n.oid = t.typnamespace
  where t.typtype = 'e' and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')} and ${anyParameter}
    and ${usedTypes(whole)} order by t.oid`

const domainSql = (whole: boolean) => `
  select 'domain ' || format('%I.%I', n.nspname, t.typname) as what,
    format('create domain %I.%I as %s%s%s%s', n.nspname, t.typname, format_type(t.typbasetype, t.typtypmod),
      case when t.typdefault is not null then ' default ' || t.typdefault else '' end,
      case when t.typnotnull then ' not null' else '' end,
      coalesce((select string_agg(format(' constraint %I %s', conname, pg_get_constraintdef(c.oid)), '')
                from pg_constraint c where c.contypid = t.oid and c.contype = 'c'), '')) as sql
  from pg_type t join pg_namespace n on n.oid = t.typnamespace
  where t.typtype = 'd' and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')} and ${anyParameter}
    and ${usedTypes(whole)} order by t.oid`

const rangeSql = (whole: boolean) => `
  select 'type ' || format('%I.%I', n.nspname, t.typname) as what,
    format('create type %I.%I as range (subtype = %s%s%s%s)', n.nspname, t.typname, format_type(r.rngsubtype, null),
      case when not o.opcdefault then format(', subtype_opclass = %I.%I', os.nspname, o.opcname) else '' end,
      case when r.rngcollation <> st.typcollation then (select format(', collation = %I.%I', cn.nspname, co.collname)
        from pg_collation co join pg_namespace cn on cn.oid = co.collnamespace where co.oid = r.rngcollation) else '' end,
      case when r.rngsubdiff <> 0 then format(', subtype_diff = %s', r.rngsubdiff::regproc) else '' end) as sql
  from pg_type t join pg_namespace n on n.oid = t.typnamespace join pg_range r on r.rngtypid = t.oid
  join pg_type st on st.oid = r.rngsubtype join pg_opclass o on o.oid = r.rngsubopc
  join pg_namespace os on os.oid = o.opcnamespace
  where r.rngcanonical = 0 and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')} and ${anyParameter}
    and ${usedTypes(whole)} order by t.oid`

const compositeSql = (whole: boolean) => `
  select 'type ' || format('%I.%I', n.nspname, t.typname) as what,
    format('create type %I.%I as (%s)', n.nspname, t.typname,
      (select string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum)
       from pg_attribute where attrelid = t.typrelid and attnum > 0 and not attisdropped)) as sql
  from pg_type t join pg_namespace n on n.oid = t.typnamespace join pg_class c on c.oid = t.typrelid
  where t.typtype = 'c' and c.relkind = 'c' and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')}
    and ${anyParameter} and ${usedTypes(whole)} order by t.oid`

/** Sequences that defaults of the columns use, or all there are; those of identity columns come with the table. */
export const usedSequences = (whole: boolean) => (whole ? allSequences : sequencesOfDefaults)

const allSequences = `
  select s.oid, s.relname, n.nspname, q.*
  from pg_class s join pg_namespace n on n.oid = s.relnamespace join pg_sequence q on q.seqrelid = s.oid
  where s.relpersistence <> 't' and ${userSchema('n.nspname')} and ${notOurs('pg_class', 's.oid')} and ${anyParameter}
    and not exists (select from pg_depend p where p.classid = 'pg_class'::regclass and p.objid = s.oid and p.deptype = 'i')`

const sequencesOfDefaults = `
  select distinct s.oid, s.relname, n.nspname, q.*
  from pg_attrdef d
  join pg_depend p on p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass
  join pg_class s on s.oid = p.refobjid and s.relkind = 'S'
  join pg_namespace n on n.oid = s.relnamespace
  join pg_sequence q on q.seqrelid = s.oid
  where d.adrelid = any($1::oid[])`

const sequenceSql = (whole: boolean) => `
  select 'sequence ' || format('%I.%I', nspname, relname) as what,
    format('create sequence %I.%I as %s increment %s minvalue %s maxvalue %s start %s cache %s%s', nspname, relname,
      format_type(seqtypid, null), seqincrement, seqmin, seqmax, seqstart, seqcache,
      case when seqcycle then ' cycle' else '' end) as sql
  from (${usedSequences(whole)}) s order by oid`

const ownedSql = `
  select 'column of sequence ' || format('%I.%I', n.nspname, s.relname) as what,
    'sequence ' || format('%I.%I', n.nspname, s.relname) as about,
    format('alter sequence %I.%I owned by %I.%I.%I', n.nspname, s.relname, tn.nspname, t.relname, a.attname) as sql
  from pg_depend p
  join pg_class s on s.oid = p.objid and s.relkind = 'S' join pg_namespace n on n.oid = s.relnamespace
  join pg_class t on t.oid = p.refobjid join pg_namespace tn on tn.oid = t.relnamespace
  join pg_attribute a on a.attrelid = t.oid and a.attnum = p.refobjsubid
  where p.classid = 'pg_class'::regclass and p.refclassid = 'pg_class'::regclass and p.deptype = 'a'
    and t.oid = any($1::oid[])`

// The value is read when the statement is built: sequences are no part of a snapshot.
// Materialised: the values are asked for by names that are put together first.
const sequenceStateSql = (whole: boolean) => `
  with x as materialized (
    select s.oid, format('%I.%I', nspname, relname) as full_name, false as identity, null as table_name, null::text as column_name
    from (${usedSequences(whole)}) s
    union all
    select s.oid, format('%I.%I', n.nspname, s.relname), true, format('%I.%I', tn.nspname, t.relname), a.attname::text
    from pg_depend p join pg_class s on s.oid = p.objid and s.relkind = 'S' join pg_namespace n on n.oid = s.relnamespace
    join pg_class t on t.oid = p.refobjid join pg_namespace tn on tn.oid = t.relnamespace
    join pg_attribute a on a.attrelid = t.oid and a.attnum = p.refobjsubid
    where p.classid = 'pg_class'::regclass and p.deptype = 'i' and t.oid = any($1::oid[])
  )
  select 'value of sequence ' || x.full_name as what,
    case when identity then 'table ' || table_name else 'sequence ' || x.full_name end as about,
    case when identity then format('select setval(pg_get_serial_sequence(%L, %L), %s, %L)', table_name, column_name, v.value, v.called)
      else format('select setval(%L::regclass, %s, %L)', x.full_name, v.value, v.called) end as sql
  from x
  cross join lateral (
    select (xpath('//last_value/text()', r))[1]::text as value, (xpath('//is_called/text()', r))[1]::text::bool as called
    from query_to_xml('select last_value, is_called from ' || x.full_name, false, true, '') r
  ) v`

const functionSql = `
  select 'function ' || p.oid::regprocedure as what, pg_get_functiondef(p.oid) as sql
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  where p.prokind in ('f', 'p') and ${userSchema('n.nspname')} and ${notOurs('pg_proc', 'p.oid')} order by p.oid`

// A name only where it is not the one that the server gives: that one may be taken by a table that was renamed.
const identityOptions = `
  (select format(' (%sstart with %s increment by %s minvalue %s maxvalue %s cache %s%s)',
      case when s.relname = c.relname || '_' || a.attname || '_seq' then ''
        else format('sequence name %I.%I ', sn.nspname, s.relname) end,
      q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, case when q.seqcycle then ' cycle' else '' end)
   from pg_depend p join pg_class s on s.oid = p.objid and s.relkind = 'S' join pg_namespace sn on sn.oid = s.relnamespace
   join pg_sequence q on q.seqrelid = s.oid
   where p.classid = 'pg_class'::regclass and p.refclassid = 'pg_class'::regclass and p.refobjid = a.attrelid
     and p.refobjsubid = a.attnum and p.deptype = 'i')`

/** Whether the table \`c\` is restored together with all tables that it inherits from. */
const withParents = `(select coalesce(bool_and(y.inhparent = any($1::oid[])), false) from pg_inherits y where y.inhrelid = c.oid)`

const columnList = `
  (select string_agg(format('%I %s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
      case when a.attcollation <> t.typcollation then (select format(' collate %I.%I', cn.nspname, co.collname)
        from pg_collation co join pg_namespace cn on cn.oid = co.collnamespace where co.oid = a.attcollation) else '' end,
      case when a.attgenerated = 's' then format(' generated always as (%s) stored', pg_get_expr(d.adbin, d.adrelid))
           when a.attgenerated = 'v' then format(' generated always as (%s) virtual', pg_get_expr(d.adbin, d.adrelid))
           when a.attidentity <> '' then format(' generated %s as identity%s',
             case a.attidentity when 'a' then 'always' else 'by default' end, ${identityOptions})
           when d.adbin is not null then ' default ' || pg_get_expr(d.adbin, d.adrelid) else '' end,
      case when a.attnotnull then ' not null' else '' end), ', ' order by a.attnum)
   from pg_attribute a join pg_type t on t.oid = a.atttypid
   left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     and (a.attislocal or c.relispartition or not ${withParents}))`

const tableSql = `
  select 'table ' || format('%I.%I', n.nspname, c.relname) as what,
    format('create %stable %I.%I %s%s%s%s', case when c.relpersistence = 'u' then 'unlogged ' else '' end, n.nspname, c.relname,
      case when parent.oid is not null
        then format('partition of %I.%I %s', pn.nspname, parent.relname, pg_get_expr(c.relpartbound, c.oid))
        else format('(%s)', coalesce(${columnList}, '')) end,
      case when not c.relispartition then ' inherits (' || (
        select string_agg(h.inhparent::regclass::text, ', ' order by h.inhseqno) from pg_inherits h
        where h.inhrelid = c.oid and ${withParents}) || ')' else '' end,
      case when c.relkind = 'p' then ' partition by ' || pg_get_partkeydef(c.oid) else '' end,
      case when c.reloptions is not null then format(' with (%s)', array_to_string(c.reloptions, ', ')) else '' end) as sql
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  left join pg_inherits i on i.inhrelid = c.oid and c.relispartition
  left join pg_class parent on parent.oid = i.inhparent and parent.oid = any($1::oid[])
  left join pg_namespace pn on pn.oid = parent.relnamespace
  where c.oid = any($1::oid[]) order by c.relispartition, c.oid`

/** Whether nothing comes down to the table \`c\` from a parent that is restored with it. */
const alone = `not exists (select from pg_inherits h where h.inhrelid = c.oid and h.inhparent = any($1::oid[]))`

// What belongs to an index of the parent comes with that one, which is made for all partitions and not for itself only.
const indexSql = `
  select 'index ' || i.indexrelid::regclass as what,
    case c.relkind when 'p' then regexp_replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
      else pg_get_indexdef(i.indexrelid) end as sql
  from pg_index i join pg_class c on c.oid = i.indrelid
  where i.indrelid = any($1::oid[])
    and not exists (select from pg_inherits h join pg_index x on x.indexrelid = h.inhparent
      where h.inhrelid = i.indexrelid and x.indrelid = any($1::oid[]))
    and not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))
  order by i.indexrelid`

const constraintList = (types: string) => `
  select 'constraint ' || k.conname || ' of ' || k.conrelid::regclass as what,
    format('alter table %I.%I add constraint %I %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid)) as sql
  from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
  where k.conrelid = any($1::oid[]) and k.contype in (${types}) and ((k.conparentid = 0 and k.conislocal) or ${alone})
  order by k.contype = 'c', k.contype <> 'p', k.oid`

const constraintSql = constraintList("'p', 'u', 'x', 'c'")
const foreignKeySql = constraintList("'f'")

const viewSql = `
  select case c.relkind when 'v' then 'view ' else 'materialized view ' end || format('%I.%I', n.nspname, c.relname) as what,
    format('create %s %I.%I%s as %s%s', case c.relkind when 'v' then 'view' else 'materialized view' end, n.nspname, c.relname,
      case when c.reloptions is not null then format(' with (%s)', array_to_string(c.reloptions, ', ')) else '' end,
      rtrim(pg_get_viewdef(c.oid), ';'), case when c.relispopulated then '' else ' with no data' end) as sql
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('v', 'm') and ${userSchema('n.nspname')} and ${notOurs('pg_class', 'c.oid')} order by c.oid`

/** The views' own oids, so that what hangs on tables is read of them too. */
const viewOidsSql = `
  select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('v', 'm') and ${userSchema('n.nspname')} and ${notOurs('pg_class', 'c.oid')}`
