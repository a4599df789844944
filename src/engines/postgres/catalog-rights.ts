import {
  notOurs,
  type Statement,
  type Table,
  usedSequences,
  usedTypes,
  userSchema,
} from './catalog.ts'
import type { Session } from './connection.ts'

/** A statement that applies only where `about` was made by this restore, and where the roles are there. */
export type RightStatement = Statement & {
  /** What the statement that made the object calls it. */
  readonly about: string
  /** The role that it speaks of. */
  readonly role: string | undefined
}

/**
 * Owners, grants and comments of what a restore made, in the order in which they are to run: a grant of the owner's is
 * recorded as the owner's. A grant that somebody else gave on is given by the owner.
 */
export async function readRights(
  session: Session,
  tables: readonly Table[],
  whole: boolean,
  signal: AbortSignal,
): Promise<RightStatement[]> {
  const values = [tables.map((table) => table.oid)]
  const sql = rightsSql(objectsSql(whole))
  const rows = await session.query(sql, { signal, values, doing: 'read owners and grants' })
  return rows.map((row) => ({
    what: row['what'] ?? '',
    sql: row['sql'] ?? '',
    about: row['about'] ?? '',
    role: row['role'] ?? undefined,
  }))
}

/** Owner, grants, comment and settings of a database that a restore made under the name `into`. */
export async function readDatabaseRights(
  session: Session,
  into: string,
  signal: AbortSignal,
): Promise<RightStatement[]> {
  const objects = `
    select 'database' as about, 'database' as kind, 'database' as grants_on, quote_ident($1::text) as name,
      d.datdba as owner, d.datacl as acl, 'pg_database'::regclass as classid, d.oid
    from pg_database d where d.datname = current_database()`
  const settings = `
    select 'setting ' || s as what, 'database' as about, null::text as role,
      format('alter database %I set %s to %s', $1::text, quote_ident(split_part(s, '=', 1)),
        case when split_part(s, '=', 1) in ('search_path', 'session_preload_libraries', 'local_preload_libraries',
            'temp_tablespaces', 'unix_socket_directories')
          then substr(s, strpos(s, '=') + 1) else quote_literal(substr(s, strpos(s, '=') + 1)) end) as sql
    from pg_db_role_setting x cross join lateral unnest(x.setconfig) s
    where x.setrole = 0 and x.setdatabase = (select oid from pg_database where datname = current_database())`
  const options = { signal, values: [into], doing: 'read the rights of the database' }
  const rights = await session.query(rightsSql(objects, 'pg_shdescription'), options)
  const set = await session.query(settings, options)
  return [...rights, ...set].map((row) => ({
    what: row['what'] ?? '',
    sql: row['sql'] ?? '',
    about: row['about'] ?? '',
    role: row['role'] ?? undefined,
  }))
}

const tableName = `format('%I.%I', n.nspname, c.relname)`

/** What can have an owner, grants and a comment: as many columns as `rightsSql` reads. */
function objectsSql(whole: boolean): string {
  const relations = (where: string, kind: string) => `
    select ${kind} || ' ' || ${tableName} as about, ${kind} as kind, 'table' as grants_on, ${tableName} as name,
      c.relowner as owner, c.relacl as acl, 'pg_class'::regclass as classid, c.oid
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where ${where}`
  // A sequence that a column owns changes hands with its table.
  const sequences = `
    select about, 'sequence', 'sequence', ${tableName}, case when owned then null else c.relowner end, c.relacl,
      'pg_class'::regclass, c.oid
    from (
      select s.oid, 'sequence ' || format('%I.%I', s.nspname, s.relname) as about,
        exists (select from pg_depend p where p.classid = 'pg_class'::regclass and p.objid = s.oid and p.deptype = 'a'
          and p.refclassid = 'pg_class'::regclass) as owned
      from (${usedSequences(whole)}) s
      union all
      select p.objid, 'table ' || format('%I.%I', tn.nspname, t.relname), true
      from pg_depend p join pg_class t on t.oid = p.refobjid join pg_namespace tn on tn.oid = t.relnamespace
      join pg_class s on s.oid = p.objid and s.relkind = 'S'
      where p.classid = 'pg_class'::regclass and p.refclassid = 'pg_class'::regclass and p.deptype = 'i'
        and t.oid = any($1::oid[])
    ) x join pg_class c on c.oid = x.oid join pg_namespace n on n.oid = c.relnamespace`
  const types = `
    select case t.typtype when 'd' then 'domain ' else 'type ' end || format('%I.%I', n.nspname, t.typname),
      case t.typtype when 'd' then 'domain' else 'type' end, 'type', format('%I.%I', n.nspname, t.typname),
      t.typowner, t.typacl, 'pg_type'::regclass, t.oid
    from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid
    where (t.typtype in ('e', 'd', 'r') or (t.typtype = 'c' and c.relkind = 'c'))
      and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')} and ${usedTypes(whole)}`
  const schemas = `
    select 'schema ' || n.nspname, 'schema', 'schema', quote_ident(n.nspname), n.nspowner, n.nspacl,
      'pg_namespace'::regclass, n.oid
    from pg_namespace n where ${userSchema('n.nspname')} and ${notOurs('pg_namespace', 'n.oid')}`
  const functions = `
    select 'function ' || p.oid::regprocedure, case p.prokind when 'p' then 'procedure' else 'function' end,
      case p.prokind when 'p' then 'procedure' else 'function' end,
      format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner, p.proacl,
      'pg_proc'::regclass, p.oid
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.prokind in ('f', 'p') and ${userSchema('n.nspname')} and ${notOurs('pg_proc', 'p.oid')}`
  const kind = `case c.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end`
  const views = `c.relkind in ('v', 'm') and ${userSchema('n.nspname')} and ${notOurs('pg_class', 'c.oid')}`
  const statistics = `
    select 'statistics ' || s.stxname, 'statistics', 'statistics', format('%I.%I', n.nspname, s.stxname), s.stxowner,
      null::aclitem[], 'pg_statistic_ext'::regclass, s.oid
    from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where s.stxrelid = any($1::oid[])`
  const all = [relations('c.oid = any($1::oid[])', kind), sequences, types, schemas, statistics]
  return [...all, ...(whole ? [functions, relations(views, kind)] : [])].join(' union all ')
}

// A grant list that is null is the default one. Else everything is taken away first, the owner's own rights too.
function rightsSql(objects: string, comments = 'pg_description'): string {
  const sub = comments === 'pg_description' ? 'and d.objsubid = 0' : ''
  return `
  with o as (${objects}), lists as (
    select o.about, o.grants_on, o.name, '' as columns, o.acl, o.owner from o where o.acl is not null
    union all
    select o.about, 'table', o.name, format(' (%I)', a.attname), a.attacl, null
    from o join pg_attribute a on o.classid = 'pg_class'::regclass and a.attrelid = o.oid and a.attacl is not null
    where a.attnum > 0 and not a.attisdropped
  )
  select what, about, role, sql from (
    select 1 as step, 0 as turn, 'owner of ' || about as what, about, r.rolname::text as role,
      format('alter %s %s owner to %I', kind, name, r.rolname) as sql
    from o join pg_roles r on r.oid = o.owner
    union all
    select 2, 0, 'rights on ' || about, about, null, format('revoke all on %s %s from public', grants_on, name)
    from lists where columns = ''
    union all
    select 2, 0, 'rights on ' || about, about, r.rolname,
      format('revoke all on %s %s from %I', grants_on, name, r.rolname)
    from lists join pg_roles r on r.oid = lists.owner where columns = ''
    union all
    select 3, 0, 'rights on ' || about, about, r.rolname,
      format('grant %s on %s %s to %s%s', g.rights, grants_on, name, coalesce(quote_ident(r.rolname), 'public'),
        case when g.is_grantable then ' with grant option' else '' end)
    from lists cross join lateral (
      select grantee, is_grantable, string_agg(distinct privilege_type || columns, ', ') as rights
      from aclexplode(lists.acl) group by grantee, is_grantable) g
    left join pg_roles r on r.oid = g.grantee where g.grantee = 0 or r.oid is not null
    union all
    select 4, 0, 'comment on ' || about, about, null, format('comment on %s %s is %L', kind, name, d.description)
    from o join ${comments} d on d.classoid = o.classid and d.objoid = o.oid ${sub}
  ) x order by step, about`
}

/** What a database holds that a restore of it does not take over, by kind, to be said. */
export async function readLeftOut(session: Session, signal: AbortSignal): Promise<string[]> {
  const rows = await session.query(leftOutSql, { signal, doing: 'read what else there is' })
  return rows.map((row) => `${row['kind']} ${row['names']}`)
}

const leftOutSql = `
  select kind, string_agg(name, ', ' order by name) as names from (
    select 'aggregate' as kind, p.oid::regprocedure::text as name
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.prokind not in ('f', 'p') and ${userSchema('n.nspname')} and ${notOurs('pg_proc', 'p.oid')}
    union all
    select 'operator', o.oid::regoperator::text from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
    where ${userSchema('n.nspname')} and ${notOurs('pg_operator', 'o.oid')}
    union all
    select 'operator class', c.opcname from pg_opclass c join pg_namespace n on n.oid = c.opcnamespace
    where ${userSchema('n.nspname')} and ${notOurs('pg_opclass', 'c.oid')}
    union all
    select 'range type', t.typname from pg_range r join pg_type t on t.oid = r.rngtypid
    join pg_namespace n on n.oid = t.typnamespace
    where r.rngcanonical <> 0 and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')}
    union all
    select 'base type', t.typname from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where t.typtype = 'b' and t.typelem = 0 and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')}
    union all
    select 'cast', format('%s as %s', castsource::regtype, casttarget::regtype) from pg_cast
    where oid >= 16384 and ${notOurs('pg_cast', 'pg_cast.oid')}
      and not exists (select from pg_depend x where x.classid = 'pg_cast'::regclass and x.objid = pg_cast.oid and x.deptype = 'i')
    union all
    select 'collation', collname from pg_collation c join pg_namespace n on n.oid = c.collnamespace
    where ${userSchema('n.nspname')} and ${notOurs('pg_collation', 'c.oid')}
    union all
    select 'text search configuration', cfgname from pg_ts_config c join pg_namespace n on n.oid = c.cfgnamespace
    where ${userSchema('n.nspname')} and ${notOurs('pg_ts_config', 'c.oid')}
    union all
    select 'text search dictionary', dictname from pg_ts_dict d join pg_namespace n on n.oid = d.dictnamespace
    where ${userSchema('n.nspname')} and ${notOurs('pg_ts_dict', 'd.oid')}
    union all
    select 'foreign server', srvname from pg_foreign_server
    union all
    select 'foreign table', c.oid::regclass::text from pg_class c where c.relkind = 'f'
    union all
    select 'event trigger', evtname from pg_event_trigger where ${notOurs('pg_event_trigger', 'pg_event_trigger.oid')}
    union all
    select 'publication', pubname from pg_publication
    union all
    select 'subscription', subname from pg_subscription
    where subdbid = (select oid from pg_database where datname = current_database())
    union all
    select 'default rights of', pg_get_userbyid(defaclrole) from pg_default_acl
    union all
    (select 'large objects', count(*)::text from pg_largeobject_metadata having count(*) > 0)
  ) x group by kind order by kind`
