import { collate, key, list, select, userSchema } from './schema-sql.ts'

/** Tables, and what belongs to them: see `schema-sql.ts` for the columns. */

const fullName = `format('%I.%I', n.nspname, c.relname)`
const relationFrom = `from pg_class c join pg_namespace n on n.oid = c.relnamespace`
// A partitioned table depends on its own columns as a part does: `notOurs` is not for it.
const ownRelation = `c.relpersistence <> 't' and ${userSchema('n.nspname')}
  and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')`
const ownTable = `c.relkind in ('r', 'p') and ${ownRelation}`

// A sequence is named only where its name is not the one that the server gives.
const identityOptions = `
  (select format(' generated %s as identity (%sstart with %s increment by %s minvalue %s maxvalue %s cache %s%s)',
      case a.attidentity when 'a' then 'always' else 'by default' end,
      case when s.relname = c.relname || '_' || a.attname || '_seq' and sn.oid = c.relnamespace then ''
        else format('sequence name %I.%I ', sn.nspname, s.relname) end,
      q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, case when q.seqcycle then ' cycle' else '' end)
   from pg_depend p join pg_class s on s.oid = p.objid and s.relkind = 'S' join pg_namespace sn on sn.oid = s.relnamespace
   join pg_sequence q on q.seqrelid = s.oid
   where p.classid = 'pg_class'::regclass and p.refclassid = 'pg_class'::regclass and p.refobjid = a.attrelid
     and p.refobjsubid = a.attnum and p.deptype = 'i')`

// From 18 on a NOT NULL has a name, which is told where it is not the server's own.
const notNull = `
  case when a.attnotnull then coalesce((select case when not k.convalidated then '' else
      case when k.conname <> left(c.relname || '_' || a.attname || '_not_null', 63) then format(' constraint %I not null', k.conname) else ' not null' end ||
      case when k.connoinherit then ' no inherit' else '' end end
    from pg_constraint k where k.conrelid = c.oid and k.contype = 'n' and k.conkey = array[a.attnum]), ' not null') else '' end`

// A table that inherits has only the columns of its own; a partition is made as a table and attached, so that its columns
// keep their order.
const columnList = `
  (select string_agg(format('%I %s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
      ${collate('a.atttypid', 'a.attcollation')},
      case when a.attgenerated = 's' then format(' generated always as (%s) stored', pg_get_expr(d.adbin, d.adrelid))
           when a.attgenerated = 'v' then format(' generated always as (%s)', pg_get_expr(d.adbin, d.adrelid))
           when a.attidentity <> '' then coalesce(${identityOptions}, '')
           when d.adbin is not null then ' default ' || pg_get_expr(d.adbin, d.adrelid) else '' end,
      ${notNull}), ', ' order by a.attnum)
   from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and (a.attislocal or c.relispartition))`

const checkList = `
  (select string_agg(format('constraint %I %s', k.conname, pg_get_constraintdef(k.oid)), ', ' order by k.conname)
   from pg_constraint k where k.conrelid = c.oid and k.contype = 'c' and k.convalidated and (k.conislocal or c.relispartition))`

const settings = `
  (select jsonb_agg(x order by a.attnum, x) from pg_attribute a join pg_type y on y.oid = a.atttypid
   left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   cross join lateral (select to_jsonb(a) as j) j
   cross join lateral (select format('alter table only %s alter column %I ', ${fullName}, a.attname) as prefix) f
   cross join lateral (values
     (case when a.attstorage <> y.typstorage then f.prefix || 'set storage ' ||
       case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main' end end),
     (case j.j ->> 'attcompression' when 'p' then f.prefix || 'set compression pglz' when 'l' then f.prefix || 'set compression lz4' end),
     (case when (j.j ->> 'attstattarget')::int >= 0 then f.prefix || 'set statistics ' || (j.j ->> 'attstattarget') end),
     (case when a.attoptions is not null then f.prefix || format('set (%s)', array_to_string(a.attoptions, ', ')) end),
     (case when not a.attislocal and not c.relispartition and a.attgenerated = '' and d.adbin is not null
       then f.prefix || 'set default ' || pg_get_expr(d.adbin, d.adrelid) end),
     (case when a.attnotnull and not a.attislocal and not c.relispartition then coalesce(
         (select format('alter table only %s add constraint %I not null %I', ${fullName}, k.conname, a.attname) from pg_constraint k
           where k.conrelid = c.oid and k.contype = 'n' and k.conislocal and k.convalidated and k.conkey = array[a.attnum]),
         case when current_setting('server_version_num')::int < 180000 then f.prefix || 'set not null' end) end)) v(x)
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and x is not null)`

// `fillfactor=70` and the like; a value may be anything that a setting may hold.
const options = (array: string) => `
  (select string_agg(format('%s = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') from unnest(${array}) o)`

const toastOptions = `
  (select ', ' || string_agg(format('toast.%s = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ')
   from pg_class s cross join unnest(s.reloptions) o where s.oid = c.reltoastrelid)`

const tables = `${select({
  key: key('pg_class', 'c.oid'),
  id: `'table ' || ${fullName}`,
  kind: `'table'`,
  schema: 'n.nspname',
  name: 'c.relname',
  stage: 'rows',
  sql: `${list(
    `format('create %stable %s (%s)%s%s%s%s', case when c.relpersistence = 'u' then 'unlogged ' else '' end, ${fullName},
      concat_ws(', ', ${columnList}, ${checkList}),
      ' inherits (' || (select string_agg(h.inhparent::regclass::text, ', ' order by h.inhseqno) from pg_inherits h
        where h.inhrelid = c.oid and not c.relispartition) || ')',
      case when c.relkind = 'p' then ' partition by ' || pg_get_partkeydef(c.oid) else '' end,
      (select ' using ' || quote_ident(m.amname) from pg_am m where m.oid = c.relam and m.amname <> 'heap'),
      ' with (' || ltrim(nullif(concat(${options('c.reloptions')}, ${toastOptions}), ''), ', ') || ')')`,
    `case c.relreplident when 'f' then format('alter table only %s replica identity full', ${fullName})
      when 'n' then format('alter table only %s replica identity nothing', ${fullName}) end`,
  )}::jsonb || coalesce(${settings}, '[]')`,
})} ${relationFrom} where ${ownTable} order by c.relispartition, c.oid`

const attachments = `${select({
  key: key('attached', 'c.oid'),
  id: `format('partition %s of %s', ${fullName}, c.parent)`,
  kind: `'other'`,
  schema: 'n.nspname',
  name: 'c.relname',
  table: ['n.nspname', 'c.relname'],
  stage: 'rows',
  sql: list(
    `format('alter table only %s attach partition %s %s', c.parent, ${fullName}, pg_get_expr(c.relpartbound, c.oid))`,
  ),
})} from (select c.*, i.inhparent::regclass as parent from pg_class c join pg_inherits i on i.inhrelid = c.oid where c.relispartition) c
  join pg_namespace n on n.oid = c.relnamespace where ${ownTable} order by c.oid`

const indexName = `format('%I.%I', xn.nspname, x.relname)`
const indexFrom = `from pg_index i join pg_class x on x.oid = i.indexrelid join pg_namespace xn on xn.oid = x.relnamespace
  join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace`

// What is said of an index once it is there.
const indexMore = (table: string) => `
  case when i.indisclustered then format('alter table only %s cluster on %I', ${table}, x.relname) end,
  case when i.indisreplident then format('alter table only %s replica identity using index %I', ${table}, x.relname) end`

const indexStatistics = `
  (select jsonb_agg(format('alter index %s alter column %s set statistics %s', ${indexName}, a.attnum, to_jsonb(a) ->> 'attstattarget') order by a.attnum)
   from pg_attribute a where a.attrelid = x.oid and (to_jsonb(a) ->> 'attstattarget')::int >= 0)`

const hasConstraint = `exists (select from pg_constraint k where k.conindid = i.indexrelid and k.conrelid = i.indrelid and k.contype in ('p', 'u', 'x'))`

const indexes = (relkinds: string, stage: 'table' | 'end') => `${select({
  key: key('pg_class', 'x.oid'),
  id: `'index ' || ${indexName}`,
  kind: `'index'`,
  schema: 'xn.nspname',
  name: 'x.relname',
  table: ['n.nspname', 'c.relname'],
  stage,
  sql: `${list('pg_get_indexdef(i.indexrelid)', indexMore(fullName))}::jsonb || coalesce(${indexStatistics}, '[]')`,
})} ${indexFrom} where c.relkind in (${relkinds}) and ${ownRelation} and (i.indisvalid or c.relkind = 'p')
  and not ${hasConstraint} order by x.oid`

const indexAttachments = `${select({
  key: key('attached', 'x.oid'),
  id: `format('index %s of %s', ${indexName}, h.inhparent::regclass)`,
  kind: `'other'`,
  schema: 'xn.nspname',
  name: 'x.relname',
  table: ['n.nspname', 'c.relname'],
  stage: 'end',
  sql: list(`format('alter index %s attach partition %s', h.inhparent::regclass, ${indexName})`),
})} ${indexFrom} join pg_inherits h on h.inhrelid = x.oid where ${ownTable} order by x.oid`

const constraintName = `format('%I on %s', k.conname, ${fullName})`
const constraintFrom = `from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace`

const constraintColumns = (stage: 'table' | 'end', kind: string, sql: string) =>
  select({
    key: key('pg_constraint', 'k.oid'),
    id: `'constraint ' || ${constraintName}`,
    kind: `'${kind}'`,
    schema: 'n.nspname',
    name: 'k.conname',
    table: ['n.nspname', 'c.relname'],
    stage,
    sql,
  })

const addConstraint = `format('alter table only %s add constraint %I %s', ${fullName}, k.conname, pg_get_constraintdef(k.oid))`

// The storage options of a key's index are no part of its definition.
const keyIndex = `
  (select jsonb_build_array(
     'alter index ' || ${indexName} || ' set (' || ${options('x.reloptions')} || ')', ${indexMore(fullName)}) || coalesce(${indexStatistics}, '[]')
   from pg_index i join pg_class x on x.oid = i.indexrelid join pg_namespace xn on xn.oid = x.relnamespace where x.oid = k.conindid)`

const keys = (relkind: string, stage: 'table' | 'end') =>
  `${constraintColumns(stage, 'constraint', `${list(addConstraint)}::jsonb || ${keyIndex}`)}
  ${constraintFrom} where k.contype in ('p', 'u', 'x') and c.relkind = '${relkind}' and ${ownTable}
  order by k.contype <> 'p', k.oid`

// Down to the tables that inherit, which must have it too.
const looseChecks = `${constraintColumns('end', 'constraint', list(`format('alter table %s add constraint %I %s', ${fullName}, k.conname, pg_get_constraintdef(k.oid))`))}
  ${constraintFrom} where k.contype in ('c', 'n') and not k.convalidated and k.conislocal and ${ownTable} order by k.oid`

// Made without a look at the rows and then looked at: the second half locks out nobody. A partitioned table cannot do that
// before 18.
const foreignKeys = `${constraintColumns(
  'end',
  'foreign-key',
  `case when c.relkind = 'p' then ${list(
    `format('alter table %s add constraint %I %s', ${fullName}, k.conname, pg_get_constraintdef(k.oid))`,
  )}
   else ${list(
     `${addConstraint} || case when k.convalidated then ' not valid' else '' end`,
     `case when k.convalidated then format('alter table only %s validate constraint %I', ${fullName}, k.conname) end`,
   )} end`,
)} ${constraintFrom} where k.contype = 'f' and k.conparentid = 0 and ${ownTable} order by k.oid`

const statistics = `${select({
  key: key('pg_statistic_ext', 's.oid'),
  id: `'statistics ' || format('%I.%I', sn.nspname, s.stxname)`,
  kind: `'statistics'`,
  schema: 'sn.nspname',
  name: 's.stxname',
  table: ['n.nspname', 'c.relname'],
  stage: 'end',
  sql: list(
    'pg_get_statisticsobjdef(s.oid)',
    `case when (to_jsonb(s) ->> 'stxstattarget')::int >= 0
      then format('alter statistics %I.%I set statistics %s', sn.nspname, s.stxname, to_jsonb(s) ->> 'stxstattarget') end`,
  ),
})} from pg_statistic_ext s join pg_namespace sn on sn.oid = s.stxnamespace join pg_class c on c.oid = s.stxrelid
  join pg_namespace n on n.oid = c.relnamespace where ${ownRelation} order by s.oid`

const views = `${select({
  key: key('pg_class', 'c.oid'),
  id: `case c.relkind when 'v' then 'view ' else 'materialized view ' end || ${fullName}`,
  kind: `case c.relkind when 'v' then 'view' else 'materialized-view' end`,
  schema: 'n.nspname',
  name: 'c.relname',
  stage: 'end',
  sql: `(${list(
    `format('create %s %s%s as %s%s', case c.relkind when 'v' then 'view' else 'materialized view' end, ${fullName},
      ' with (' || ${options('c.reloptions')} || ')', rtrim(pg_get_viewdef(c.oid), ';'),
      case c.relkind when 'm' then ' with no data' end)`,
  )}::jsonb || coalesce(${settingsOfView()}, '[]'))`,
})} ${relationFrom} where c.relkind in ('v', 'm') and ${ownRelation} order by c.oid`

function settingsOfView(): string {
  return `(select jsonb_agg(format('alter view %s alter column %I set default %s', ${fullName}, a.attname, pg_get_expr(d.adbin, d.adrelid)) order by a.attnum)
    from pg_attribute a join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum where a.attrelid = c.oid and c.relkind = 'v')`
}

const refreshes = `${select({
  key: key('refreshed', 'c.oid'),
  id: `'rows of materialized view ' || ${fullName}`,
  kind: `'materialized-view'`,
  schema: 'n.nspname',
  name: 'c.relname',
  stage: 'end',
  sql: list(`format('refresh materialized view %s', ${fullName})`),
})} ${relationFrom} where c.relkind = 'm' and c.relispopulated and ${ownRelation} order by c.oid`

const state = (what: string, name: string, enabled: string) =>
  `case when ${enabled} <> 'O' then format('alter table %s %s ${what} %I', ${fullName},
    case ${enabled} when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, ${name}) end`

const rules = `${select({
  key: key('pg_rewrite', 'w.oid'),
  id: `'rule ' || format('%I on %s', w.rulename, ${fullName})`,
  kind: `'rule'`,
  schema: 'n.nspname',
  name: 'w.rulename',
  table: ['n.nspname', 'c.relname'],
  stage: 'end',
  sql: list('pg_get_ruledef(w.oid)', state('rule', 'w.rulename', 'w.ev_enabled')),
})} from pg_rewrite w join pg_class c on c.oid = w.ev_class join pg_namespace n on n.oid = c.relnamespace
  where w.rulename <> '_RETURN' and ${ownRelation} order by w.oid`

// A trigger of a partition that came from its parent's comes again with that one.
const triggers = `${select({
  key: key('pg_trigger', 't.oid'),
  id: `'trigger ' || format('%I on %s', t.tgname, ${fullName})`,
  kind: `'trigger'`,
  schema: 'n.nspname',
  name: 't.tgname',
  table: ['n.nspname', 'c.relname'],
  stage: 'end',
  sql: list('pg_get_triggerdef(t.oid)', state('trigger', 't.tgname', 't.tgenabled')),
})} from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
  where not t.tgisinternal and coalesce((to_jsonb(t) ->> 'tgparentid')::oid, 0) = 0
    and not exists (select from pg_depend d where d.classid = 'pg_trigger'::regclass and d.objid = t.oid
      and d.refclassid = 'pg_trigger'::regclass)
    and ${ownRelation} order by t.oid`

const rowSecurity = `${select({
  key: key('secured', 'c.oid'),
  id: `'row security of ' || ${fullName}`,
  kind: `'policy'`,
  schema: 'n.nspname',
  name: 'c.relname',
  table: ['n.nspname', 'c.relname'],
  stage: 'end',
  sql: list(
    `case when c.relrowsecurity then format('alter table only %s enable row level security', ${fullName}) end`,
    `case when c.relforcerowsecurity then format('alter table only %s force row level security', ${fullName}) end`,
  ),
})} ${relationFrom} where (c.relrowsecurity or c.relforcerowsecurity) and ${ownTable} order by c.oid`

const policies = `${select({
  key: key('pg_policy', 'p.oid'),
  id: `'policy ' || format('%I on %s', p.polname, ${fullName})`,
  kind: `'policy'`,
  schema: 'n.nspname',
  name: 'p.polname',
  table: ['n.nspname', 'c.relname'],
  stage: 'end',
  sql: list(`format('create policy %I on %s as %s for %s to %s%s%s', p.polname, ${fullName},
      case when p.polpermissive then 'permissive' else 'restrictive' end,
      case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
      (select string_agg(case r when 0 then 'public' else quote_ident(pg_get_userbyid(r)) end, ', ') from unnest(p.polroles) r),
      ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')`),
})} from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
  where ${ownTable} order by p.oid`

/** Queries of tables and of all that belongs to them. */
export const tableObjects: readonly string[] = [
  tables,
  attachments,
  indexes(`'r'`, 'table'),
  keys('r', 'table'),
  indexes(`'p'`, 'end'),
  keys('p', 'end'),
  indexAttachments,
  looseChecks,
  foreignKeys,
  statistics,
  views,
  indexes(`'m'`, 'end'),
  refreshes,
  rules,
  triggers,
  rowSecurity,
  policies,
]
