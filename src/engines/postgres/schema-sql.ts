/**
 * The objects of a database as statements, one query for each kind. Columns of each: `key` (class and oid), `id`, `kind`,
 * `schema` and `name`, `on_schema` and `on_name` of the table that it belongs to, `stage`, and `sql`, an array in which
 * null stands for nothing. Columns of the catalog that came with later versions are read by way of JSON.
 */

const userSchema = (column: string) =>
  `${column} not like 'pg\\_%' and ${column} not in ('information_schema', 'redoubt')`

const notOurs = (catalog: string, oid: string) =>
  `not exists (select from pg_depend x where x.classid = '${catalog}'::regclass and x.objid = ${oid} and x.deptype in ('e', 'i'))`

const key = (catalog: string, oid: string) => `'${catalog}:' || ${oid} as key`

type Columns = {
  readonly key: string
  readonly id: string
  readonly kind: string
  readonly schema?: string
  readonly name: string
  readonly table?: readonly [schema: string, name: string]
  readonly stage: 'rows' | 'table' | 'end'
  readonly sql: string
}

const select = (
  columns: Columns,
) => `select ${columns.key}, ${columns.id} as id, ${columns.kind} as kind,
  ${columns.schema ?? 'null::text'} as schema, ${columns.name}::text as name,
  ${columns.table?.[0] ?? 'null'}::text as on_schema, ${columns.table?.[1] ?? 'null'}::text as on_name,
  '${columns.stage}' as stage, ${columns.sql} as sql`

const list = (...sql: readonly string[]) => `json_build_array(${sql.join(', ')})`

const schemas = `${select({
  key: key('pg_namespace', 'n.oid'),
  id: `'schema ' || quote_ident(n.nspname)`,
  kind: `'schema'`,
  name: 'n.nspname',
  stage: 'rows',
  sql: list(`format('create schema if not exists %I', n.nspname)`),
})} from pg_namespace n where ${userSchema('n.nspname')} and ${notOurs('pg_namespace', 'n.oid')}`

const extensions = `${select({
  key: key('pg_extension', 'e.oid'),
  id: `'extension ' || quote_ident(e.extname)`,
  kind: `'extension'`,
  name: 'e.extname',
  stage: 'rows',
  sql: list(`format('create extension if not exists %I with schema %I', e.extname, n.nspname)`),
})} from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname <> 'plpgsql'`

// The locale of ICU's went through three columns: 12 to 14 collcollate, 15 and 16 colliculocale, then colllocale.
const collations = `${select({
  key: key('pg_collation', 'c.oid'),
  id: `'collation ' || format('%I.%I', n.nspname, c.collname)`,
  kind: `'collation'`,
  schema: 'n.nspname',
  name: 'c.collname',
  stage: 'rows',
  sql: list(`format('create collation %I.%I (provider = %s, %s%s%s)', n.nspname, c.collname,
      case c.collprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
      case when c.collprovider = 'c' then format('lc_collate = %L, lc_ctype = %L', c.collcollate, c.collctype)
        else format('locale = %L', coalesce(j.c ->> 'colllocale', j.c ->> 'colliculocale', c.collcollate)) end,
      case when j.c ->> 'collicurules' is not null then format(', rules = %L', j.c ->> 'collicurules') else '' end,
      case when not c.collisdeterministic then ', deterministic = false' else '' end)`),
})} from pg_collation c join pg_namespace n on n.oid = c.collnamespace cross join lateral (select to_jsonb(c) as c) j
  where ${userSchema('n.nspname')} and ${notOurs('pg_collation', 'c.oid')}`

const typeName = `format('%I.%I', n.nspname, t.typname)`
const typeFrom = `from pg_type t join pg_namespace n on n.oid = t.typnamespace`
const typeWhere = `${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')}`

const typeColumns = (sql: string): string =>
  select({
    key: key('pg_type', 't.oid'),
    id: `'type ' || ${typeName}`,
    kind: `'type'`,
    schema: 'n.nspname',
    name: 't.typname',
    stage: 'rows',
    sql,
  })

const enums = `${typeColumns(
  list(`format('create type %s as enum (%s)', ${typeName},
    (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder) from pg_enum where enumtypid = t.oid))`),
)} ${typeFrom} where t.typtype = 'e' and ${typeWhere}`

const collate = (type: string, collation: string) => `
  case when ${collation} <> 0 and ${collation} <> (select typcollation from pg_type where oid = ${type})
    then (select format(' collate %I.%I', cn.nspname, co.collname) from pg_collation co
      join pg_namespace cn on cn.oid = co.collnamespace where co.oid = ${collation}) else '' end`

const domains = `${typeColumns(
  list(`format('create domain %s as %s%s%s%s%s', ${typeName}, format_type(t.typbasetype, t.typtypmod),
      ${collate('t.typbasetype', 't.typcollation')},
      case when t.typdefaultbin is not null then ' default ' || pg_get_expr(t.typdefaultbin, 'pg_type'::regclass) else '' end,
      case when t.typnotnull then ' not null' else '' end,
      coalesce((select string_agg(format(' constraint %I %s', k.conname, pg_get_constraintdef(k.oid)), '' order by k.conname)
        from pg_constraint k where k.contypid = t.oid and k.contype = 'c' and k.convalidated), ''))`) +
    `::jsonb || coalesce((select jsonb_agg(format('alter domain %s add constraint %I %s', ${typeName}, k.conname,
        pg_get_constraintdef(k.oid)) order by k.conname)
      from pg_constraint k where k.contypid = t.oid and k.contype = 'c' and not k.convalidated), '[]')`,
)} ${typeFrom} where t.typtype = 'd' and ${typeWhere}`

const ranges = `${typeColumns(
  list(`format('create type %s as range (subtype = %s%s%s%s%s)', ${typeName}, format_type(r.rngsubtype, null),
      case when not o.opcdefault then format(', subtype_opclass = %I.%I', os.nspname, o.opcname) else '' end,
      case when r.rngcollation <> st.typcollation then (select format(', collation = %I.%I', cn.nspname, co.collname)
        from pg_collation co join pg_namespace cn on cn.oid = co.collnamespace where co.oid = r.rngcollation) else '' end,
      case when r.rngsubdiff <> 0 then format(', subtype_diff = %s', r.rngsubdiff::regproc) else '' end,
      (select format(', multirange_type_name = %I.%I', mn.nspname, m.typname) from pg_type m
        join pg_namespace mn on mn.oid = m.typnamespace where m.oid = (to_jsonb(r) ->> 'rngmultitypid')::oid))`),
)} ${typeFrom} join pg_range r on r.rngtypid = t.oid
  join pg_type st on st.oid = r.rngsubtype join pg_opclass o on o.oid = r.rngsubopc
  join pg_namespace os on os.oid = o.opcnamespace where r.rngcanonical = 0 and ${typeWhere}`

const composites = `${typeColumns(
  list(`format('create type %s as (%s)', ${typeName},
    (select string_agg(format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod), ${collate('a.atttypid', 'a.attcollation')}),
       ', ' order by a.attnum) from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))`),
)} ${typeFrom} join pg_class c on c.oid = t.typrelid where t.typtype = 'c' and c.relkind = 'c' and ${typeWhere}`

const functions = `${select({
  key: key('pg_proc', 'p.oid'),
  id: `case p.prokind when 'p' then 'procedure ' else 'function ' end || p.oid::regprocedure`,
  kind: `case p.prokind when 'p' then 'procedure' else 'function' end`,
  schema: 'n.nspname',
  name: 'p.proname',
  stage: 'rows',
  sql: list(`regexp_replace(pg_get_functiondef(p.oid), '^CREATE OR REPLACE', 'CREATE')`),
})} from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  where p.prokind in ('f', 'p', 'w') and ${userSchema('n.nspname')} and ${notOurs('pg_proc', 'p.oid')}`

// Arguments of an aggregate by its kind: for `create aggregate` they are the same as pg_get_function_arguments gives.
const aggregates = `${select({
  key: key('pg_proc', 'p.oid'),
  id: `'aggregate ' || p.oid::regprocedure`,
  kind: `'function'`,
  schema: 'n.nspname',
  name: 'p.proname',
  stage: 'rows',
  sql: list(`format('create aggregate %I.%I(%s) (%s)', n.nspname, p.proname,
      case when p.pronargs = 0 then '*' else pg_get_function_arguments(p.oid) end,
      concat_ws(', ', 'sfunc = ' || a.aggtransfn::regproc, 'stype = ' || format_type(a.aggtranstype, null),
        case when a.aggtransspace <> 0 then 'sspace = ' || a.aggtransspace end,
        case when a.agginitval is not null then 'initcond = ' || quote_literal(a.agginitval) end,
        case when a.aggfinalfn <> 0 then 'finalfunc = ' || a.aggfinalfn::regproc end,
        case when a.aggfinalextra then 'finalfunc_extra' end,
        case when a.aggfinalfn <> 0 then 'finalfunc_modify = ' || case a.aggfinalmodify when 'r' then 'read_only' when 's' then 'shareable' else 'read_write' end end,
        case when a.aggcombinefn <> 0 then 'combinefunc = ' || a.aggcombinefn::regproc end,
        case when a.aggserialfn <> 0 then 'serialfunc = ' || a.aggserialfn::regproc end,
        case when a.aggdeserialfn <> 0 then 'deserialfunc = ' || a.aggdeserialfn::regproc end,
        case when a.aggmtransfn <> 0 then 'msfunc = ' || a.aggmtransfn::regproc end,
        case when a.aggminvtransfn <> 0 then 'minvfunc = ' || a.aggminvtransfn::regproc end,
        case when a.aggmtranstype <> 0 then 'mstype = ' || format_type(a.aggmtranstype, null) end,
        case when a.aggmtransspace <> 0 then 'msspace = ' || a.aggmtransspace end,
        case when a.aggmfinalfn <> 0 then 'mfinalfunc = ' || a.aggmfinalfn::regproc end,
        case when a.aggmfinalextra then 'mfinalfunc_extra' end,
        case when a.aggmfinalfn <> 0 then 'mfinalfunc_modify = ' || case a.aggmfinalmodify when 'r' then 'read_only' when 's' then 'shareable' else 'read_write' end end,
        case when a.aggminitval is not null then 'minitcond = ' || quote_literal(a.aggminitval) end,
        case when a.aggsortop <> 0 then (select format('sortop = operator(%I.%s)', sn.nspname, s.oprname)
          from pg_operator s join pg_namespace sn on sn.oid = s.oprnamespace where s.oid = a.aggsortop) end,
        case when a.aggkind = 'h' then 'hypothetical' end,
        case p.proparallel when 's' then 'parallel = safe' when 'r' then 'parallel = restricted' end))`),
})} from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_aggregate a on a.aggfnoid = p.oid
  where p.prokind = 'a' and ${userSchema('n.nspname')} and ${notOurs('pg_proc', 'p.oid')}`

const casts = `${select({
  key: key('pg_cast', 'c.oid'),
  id: `format('cast %s as %s', format_type(c.castsource, null), format_type(c.casttarget, null))`,
  kind: `'other'`,
  name: `format('%s as %s', format_type(c.castsource, null), format_type(c.casttarget, null))`,
  stage: 'rows',
  sql: list(`format('create cast (%s as %s) %s%s', format_type(c.castsource, null), format_type(c.casttarget, null),
      case c.castmethod when 'b' then 'without function' when 'i' then 'with inout' else 'with function ' || c.castfunc::regprocedure end,
      case c.castcontext when 'a' then ' as assignment' when 'i' then ' as implicit' else '' end)`),
})} from pg_cast c where c.oid >= 16384 and ${notOurs('pg_cast', 'c.oid')}`

const sequenceName = `format('%I.%I', n.nspname, c.relname)`
const sequenceFrom = `from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_sequence q on q.seqrelid = c.oid`
const sequenceWhere = `c.relpersistence <> 't' and ${userSchema('n.nspname')}`

const sequences = `${select({
  key: key('pg_class', 'c.oid'),
  id: `'sequence ' || ${sequenceName}`,
  kind: `'sequence'`,
  schema: 'n.nspname',
  name: 'c.relname',
  stage: 'rows',
  sql: list(`format('create %ssequence %s as %s increment %s minvalue %s maxvalue %s start %s cache %s%s',
      case c.relpersistence when 'u' then 'unlogged ' else '' end, ${sequenceName}, format_type(q.seqtypid, null),
      q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache, case when q.seqcycle then ' cycle' else '' end)`),
})} ${sequenceFrom} where ${sequenceWhere} and ${notOurs('pg_class', 'c.oid')}`

const sequenceOwners = `${select({
  key: key('owned', 'c.oid'),
  id: `'owner of sequence ' || ${sequenceName}`,
  kind: `'other'`,
  schema: 'n.nspname',
  name: 'c.relname',
  table: ['tn.nspname', 't.relname'],
  stage: 'rows',
  sql: list(
    `format('alter sequence %s owned by %I.%I.%I', ${sequenceName}, tn.nspname, t.relname, a.attname)`,
  ),
})} ${sequenceFrom}
  join pg_depend p on p.classid = 'pg_class'::regclass and p.objid = c.oid and p.refclassid = 'pg_class'::regclass and p.deptype = 'a'
  join pg_class t on t.oid = p.refobjid join pg_namespace tn on tn.oid = t.relnamespace
  join pg_attribute a on a.attrelid = t.oid and a.attnum = p.refobjsubid
  where ${sequenceWhere} and ${notOurs('pg_class', 'c.oid')}`

// Sequences are no part of a snapshot: what they stand at is what they stood at when this was read.
const sequenceValues = `with own as materialized (select c.oid, c.relname, c.relkind, n.nspname ${sequenceFrom} where ${sequenceWhere})
  ${select({
    key: key('value', 'c.oid'),
    id: `'value of sequence ' || ${sequenceName}`,
    kind: `'sequence'`,
    schema: 'n.nspname',
    name: 'c.relname',
    table: ['o.nspname', 'o.relname'],
    stage: 'end',
    sql: list(`case when o.attname is null then format('select pg_catalog.setval(%L, %s, %L)', ${sequenceName}, v.value, v.called)
      else format('select pg_catalog.setval(pg_catalog.pg_get_serial_sequence(%L, %L), %s, %L)',
        format('%I.%I', o.nspname, o.relname), o.attname, v.value, v.called) end`),
  })} from own c cross join lateral (select c.nspname) n(nspname)
  left join lateral (select tn.nspname, t.relname, a.attname from pg_depend p
    join pg_class t on t.oid = p.refobjid join pg_namespace tn on tn.oid = t.relnamespace
    join pg_attribute a on a.attrelid = t.oid and a.attnum = p.refobjsubid
    where p.classid = 'pg_class'::regclass and p.objid = c.oid and p.refclassid = 'pg_class'::regclass and p.deptype = 'i') o on true
  cross join lateral (
    select (xpath('//last_value/text()', r))[1]::text as value, (xpath('//is_called/text()', r))[1]::text::bool as called
    from query_to_xml('select last_value, is_called from ' || ${sequenceName}, false, true, '') r
    where c.relkind = 'S') v
  where not exists (select from pg_depend x where x.classid = 'pg_class'::regclass and x.objid = c.oid and x.deptype = 'e')`

/** Queries of what does not belong to a table, in the order in which it is made where nothing else tells. */
export const looseObjects: readonly string[] = [
  schemas,
  extensions,
  collations,
  enums,
  domains,
  ranges,
  composites,
  sequences,
  functions,
  aggregates,
  casts,
]

export const ownedSequences: readonly string[] = [sequenceOwners]

export const valueObjects: readonly string[] = [sequenceValues]

export { collate, key, list, notOurs, select, userSchema }
