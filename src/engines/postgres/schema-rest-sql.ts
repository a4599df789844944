import { key, list, notOurs, select, userSchema } from './schema-sql.ts'

/** What stands beside the tables: publications, event triggers, comments, roles and rights. See `schema-sql.ts`. */

/** Those that links made for themselves, by the names of links. */
const linkPublications = '^redoubt_[0-9a-f]{16}$'

const publicationOptions = `
  concat_ws(', ', format('publish = %L', concat_ws(', ', case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end,
      case when p.pubdelete then 'delete' end, case when p.pubtruncate then 'truncate' end)),
    case when (j.p ->> 'pubviaroot')::boolean then 'publish_via_partition_root = true' end,
    case when j.p ->> 'pubgencols' = 's' then 'publish_generated_columns = stored' end)`

// Columns and conditions came with 15; before, a table is published whole.
const publicationTables = (since15: boolean) => `
  (select string_agg(format('table only %I.%I%s', n.nspname, c.relname, ${
    since15
      ? `concat(coalesce((select format(' (%s)', string_agg(quote_ident(a.attname), ', ' order by a.attnum)) from pg_attribute a
          where a.attrelid = c.oid and a.attnum = any(r.prattrs) having count(*) > 0), ''),
        coalesce(' where (' || pg_get_expr(r.prqual, c.oid) || ')', ''))`
      : `''`
  }), ', ' order by n.nspname, c.relname)
   from pg_publication_rel r join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace where r.prpubid = p.oid)`

const publicationSchemas = `
  (select 'tables in schema ' || string_agg(quote_ident(n.nspname), ', ' order by n.nspname)
   from pg_publication_namespace s join pg_namespace n on n.oid = s.pnnspid where s.pnpubid = p.oid)`

const publications = (since15: boolean) =>
  `${select({
    key: key('pg_publication', 'p.oid'),
    id: `'publication ' || quote_ident(p.pubname)`,
    kind: `'publication'`,
    name: 'p.pubname',
    stage: 'end',
    sql: list(`format('create publication %I%s with (%s)', p.pubname,
    case when p.puballtables then ' for all tables' else ' for ' || nullif(concat_ws(', ', ${publicationTables(since15)},
      ${since15 ? publicationSchemas : 'null'}), '') end, ${publicationOptions})`),
  })} from pg_publication p cross join lateral (select to_jsonb(p) as p) j
   where p.pubname !~ '${linkPublications}' order by p.pubname`

const eventTriggers = `${select({
  key: key('pg_event_trigger', 'e.oid'),
  id: `'event trigger ' || quote_ident(e.evtname)`,
  kind: `'trigger'`,
  name: 'e.evtname',
  stage: 'end',
  sql: list(
    `format('create event trigger %I on %s%s execute function %s()', e.evtname, e.evtevent,
      (select ' when tag in (' || string_agg(quote_literal(t), ', ') || ')' from unnest(e.evttags) t), e.evtfoid::regproc)`,
    `case when e.evtenabled <> 'O' then format('alter event trigger %I %s', e.evtname,
      case e.evtenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end) end`,
  ),
})} from pg_event_trigger e where ${notOurs('pg_event_trigger', 'e.oid')} order by e.evtname`

// Thousands of the server's own are not looked at. It names an object as COMMENT ON does, but for parts of a table, which it names the other way round.
const comments = (ofEventTriggers: boolean) => `
  with own as materialized (select * from pg_description where objoid >= 16384 or classoid = 'pg_namespace'::regclass)
  select 'comment:' || d.classoid || ':' || d.objoid || ':' || d.objsubid as key,
    'comment on ' || x.what as id, 'comment' as kind, coalesce(i.schema, ks.nspname, case when d.classoid = 'pg_namespace'::regclass then i.name end) as schema,
    coalesce(i.name, i.identity) as name, ks.nspname as on_schema, kc.relname as on_name, 'end' as stage,
    json_build_array(format('comment on %s is %L', x.what, d.description)) as sql
  from own d
  cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
  left join lateral (select coalesce(
      case d.classoid when 'pg_class'::regclass then (select case when o.relkind in ('i', 'I') then (select x.indrelid from pg_index x where x.indexrelid = o.oid)
          when o.relkind in ('r', 'p', 'v', 'm', 'f') then o.oid end from pg_class o where o.oid = d.objoid)
        when 'pg_constraint'::regclass then (select nullif(conrelid, 0) from pg_constraint where oid = d.objoid)
        when 'pg_trigger'::regclass then (select tgrelid from pg_trigger where oid = d.objoid)
        when 'pg_rewrite'::regclass then (select ev_class from pg_rewrite where oid = d.objoid)
        when 'pg_policy'::regclass then (select polrelid from pg_policy where oid = d.objoid) end) as relid) k on true
  left join pg_class kc on kc.oid = k.relid left join pg_namespace ks on ks.oid = kc.relnamespace
  cross join lateral (select case
      when i.type in ('table column', 'view column', 'materialized view column') then 'column ' || i.identity
      when i.type = 'composite type column' then 'column ' || i.identity
      when i.type = 'domain constraint' then (select format('constraint %I on domain %s', c.conname, c.contypid::regtype) from pg_constraint c where c.oid = d.objoid)
      when i.type = 'table constraint' then (select format('constraint %I on %s', c.conname, c.conrelid::regclass) from pg_constraint c where c.oid = d.objoid)
      when i.type = 'statistics object' then 'statistics ' || i.identity
      when i.type = 'composite type' then 'type ' || i.identity
      when i.type = 'function' then case (select prokind from pg_proc where oid = d.objoid) when 'a' then 'aggregate ' else 'function ' end || i.identity
      when i.type = 'cast' then (select format('cast (%s as %s)', format_type(castsource, null), format_type(casttarget, null)) from pg_cast where oid = d.objoid)
      else i.type || ' ' || i.identity end as what) x
  where d.classoid in ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass, 'pg_constraint'::regclass,
      'pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_statistic_ext'::regclass, 'pg_collation'::regclass,
      'pg_publication'::regclass, 'pg_event_trigger'::regclass, 'pg_extension'::regclass, 'pg_cast'::regclass)
    and (d.objoid >= 16384 or (d.classoid = 'pg_namespace'::regclass and i.identity = 'public' and d.description <> 'standard public schema'))
    and not exists (select from pg_depend e where e.classid = d.classoid and e.objid = d.objoid and e.deptype = 'e')
    and (i.schema is null or (${userSchema('i.schema')})) and (ks.nspname is null or (${userSchema('ks.nspname')}))
    and i.identity <> 'redoubt' and (d.classoid = 'pg_event_trigger'::regclass) = ${ofEventTriggers} order by 2`

// Passwords can be read by superusers only; without one the role cannot log in by password until it is given one.
const roles = (
  passwords: boolean,
) => `select 'role:' || r.oid as key, 'role ' || quote_ident(r.rolname) as id, 'role' as kind, null::text as schema,
    r.rolname::text as name, null::text as on_schema, null::text as on_name, 'rows' as stage,
    (json_build_array(
      format('do $redoubt$ begin if not exists (select from pg_catalog.pg_roles where rolname = %L) then create role %I; end if; end $redoubt$', r.rolname, r.rolname),
      format('alter role %I with %s%s%s', r.rolname, concat_ws(' ', case when r.rolsuper then 'superuser' else 'nosuperuser' end,
        case when r.rolinherit then 'inherit' else 'noinherit' end, case when r.rolcreaterole then 'createrole' else 'nocreaterole' end,
        case when r.rolcreatedb then 'createdb' else 'nocreatedb' end, case when r.rolcanlogin then 'login' else 'nologin' end,
        case when r.rolreplication then 'replication' else 'noreplication' end, case when r.rolbypassrls then 'bypassrls' else 'nobypassrls' end,
        'connection limit ' || r.rolconnlimit),
        case when r.rolvaliduntil is not null then format(' valid until %L', r.rolvaliduntil) end,
        ${passwords ? `(select format(' password %L', a.rolpassword) from pg_authid a where a.oid = r.oid and a.rolpassword is not null)` : 'null'}))::jsonb
      || coalesce((select jsonb_agg(format('alter role %I set %I to %s', r.rolname, split_part(s, '=', 1),
          case when split_part(s, '=', 1) in ('search_path', 'session_preload_libraries', 'local_preload_libraries', 'temp_tablespaces')
            then substr(s, strpos(s, '=') + 1) else quote_literal(substr(s, strpos(s, '=') + 1)) end))
        from pg_db_role_setting x cross join unnest(x.setconfig) s where x.setrole = r.oid and x.setdatabase = 0), '[]')) as sql
  from pg_roles r where r.rolname not like 'pg\\_%' and r.oid >= 16384 order by r.oid`

const memberships = `select 'member:' || m.roleid || ':' || m.member as key, format('member %s of %s', quote_ident(u.rolname), quote_ident(g.rolname)) as id,
    'role' as kind, null::text as schema, u.rolname::text as name, null::text as on_schema, null::text as on_name, 'end' as stage,
    json_build_array(format('grant %I to %I%s', g.rolname, u.rolname, case when bool_or(m.admin_option) then ' with admin option' else '' end)) as sql
  from pg_auth_members m join pg_roles g on g.oid = m.roleid join pg_roles u on u.oid = m.member
  where u.oid >= 16384 group by m.roleid, m.member, u.rolname, g.rolname order by 2`

const defaultRights = `select 'default:' || d.oid || ':' || g.grantee as key, format('default rights of %s %s %s', pg_get_userbyid(d.defaclrole), d.defaclobjtype, g.who) ||
      coalesce(' in ' || quote_ident(n.nspname), '') as id, 'grant' as kind, null::text as schema, coalesce(n.nspname, 'default rights')::text as name,
    null::text as on_schema, null::text as on_name, 'end' as stage,
    json_build_array(
      format('alter default privileges for role %I%s revoke all on %s from %s', pg_get_userbyid(d.defaclrole), ' in schema ' || quote_ident(n.nspname), k.kind, g.who),
      case when g.rights is not null then format('alter default privileges for role %I%s grant %s on %s to %s', pg_get_userbyid(d.defaclrole),
        ' in schema ' || quote_ident(n.nspname), g.rights, k.kind, g.who) end,
      case when g.grantable is not null then format('alter default privileges for role %I%s grant %s on %s to %s with grant option', pg_get_userbyid(d.defaclrole),
        ' in schema ' || quote_ident(n.nspname), g.grantable, k.kind, g.who) end) as sql
  from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
  cross join lateral (select case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' when 'n' then 'schemas' else 'large objects' end as kind) k
  cross join lateral (select a.grantee, case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as who,
      string_agg(a.privilege_type, ', ') filter (where not a.is_grantable) as rights, string_agg(a.privilege_type, ', ') filter (where a.is_grantable) as grantable
    from (select * from aclexplode(d.defaclacl) union all
      select 0, x, null, false from unnest(case when d.defaclnamespace = 0 then array[0::oid, d.defaclrole] else '{}' end) x) a group by a.grantee) g
  order by 2`

const rights = `
  with o(key, kind, grants_on, name, owner, acl, attached) as (
    select 'pg_class:' || c.oid, case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' else 'table' end,
      case c.relkind when 'S' then 'sequence' else 'table' end, format('%I.%I', n.nspname, c.relname),
      case when exists (select from pg_depend p where p.classid = 'pg_class'::regclass and p.objid = c.oid and c.relkind = 'S' and p.deptype in ('a', 'i')
        and p.refclassid = 'pg_class'::regclass) then 0 else c.relowner end, c.relacl, c.oid
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'S') and c.relpersistence <> 't' and ${userSchema('n.nspname')}
      and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')
    union all
    select 'pg_type:' || t.oid, case t.typtype when 'd' then 'domain' else 'type' end, 'type', format('%I.%I', n.nspname, t.typname), t.typowner, t.typacl, null
    from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid
    where (t.typtype in ('e', 'd', 'r') or c.relkind = 'c') and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')}
    union all
    select 'pg_proc:' || p.oid, w.word, case p.prokind when 'p' then 'procedure' else 'function' end,
      format('%I.%I(%s)', n.nspname, p.proname, case when p.prokind = 'a' and p.pronargs = 0 and w.word = 'aggregate' then '*' else pg_get_function_identity_arguments(p.oid) end),
      p.proowner, p.proacl, null
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    cross join lateral (select case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end as word) w
    where ${userSchema('n.nspname')} and ${notOurs('pg_proc', 'p.oid')}
    union all
    select 'pg_namespace:' || n.oid, 'schema', 'schema', quote_ident(n.nspname), n.nspowner, n.nspacl, null
    from pg_namespace n where ${userSchema('n.nspname')} and ${notOurs('pg_namespace', 'n.oid')}
    union all
    select 'pg_collation:' || c.oid, 'collation', null, format('%I.%I', n.nspname, c.collname), c.collowner, null, null
    from pg_collation c join pg_namespace n on n.oid = c.collnamespace where ${userSchema('n.nspname')} and ${notOurs('pg_collation', 'c.oid')}
    union all
    select 'pg_statistic_ext:' || s.oid, 'statistics', null, format('%I.%I', n.nspname, s.stxname), s.stxowner, null, null
    from pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace where ${userSchema('n.nspname')}
    union all
    select 'pg_publication:' || p.oid, 'publication', null, quote_ident(p.pubname), p.pubowner, null, null
    from pg_publication p where p.pubname !~ '${linkPublications}'
    union all
    select 'large:' || l.oid, 'large object', 'large object', l.oid::text, l.lomowner, l.lomacl, null from pg_largeobject_metadata l
  ),
  lists as (
    select key, grants_on, name, '' as columns, acl, owner from o where acl is not null
    union all
    select o.key, 'table', o.name, format(' (%I)', a.attname), a.attacl, 0
    from o join pg_attribute a on a.attrelid = o.attached and a.attacl is not null where a.attnum > 0 and not a.attisdropped
  ),
  said(key, step, sql) as (
    select key, 1, format('alter %s %s owner to %I', kind, name, pg_get_userbyid(owner)) from o where owner <> 0
    union all
    select key, 2, format('revoke all on %s %s from public', grants_on, name) from lists where columns = ''
    union all
    select key, 2, format('revoke all on %s %s from %I', grants_on, name, pg_get_userbyid(owner)) from lists where columns = '' and owner <> 0
    union all
    select l.key, 3, format('grant %s on %s %s to %s%s', g.rights, l.grants_on, l.name, g.who, case when g.is_grantable then ' with grant option' else '' end)
    from lists l cross join lateral (
      select a.is_grantable, case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as who,
        case when l.columns = '' and count(distinct a.privilege_type) = (select count(*) from aclexplode(acldefault(
            (case l.grants_on when 'table' then 'r' when 'sequence' then 's' when 'schema' then 'n' when 'type' then 'T' when 'large object' then 'L' else 'f' end)::"char", 10)) x
            where x.grantee = 10)
          then 'all' else string_agg(distinct a.privilege_type || l.columns, ', ') end as rights
      from aclexplode(l.acl) a group by a.grantee, a.is_grantable) g
  )
  select 'right:' || s.key as key, format('rights of %s %s', o.kind, o.name) as id, 'grant' as kind, null::text as schema, o.name as name,
    null::text as on_schema, null::text as on_name, 'end' as stage, json_agg(s.sql order by s.step, s.sql) as sql
  from said s join o on o.key = s.key group by s.key, o.kind, o.name order by 2`

/** Queries of what is made last. */
export function lastObjects(versionNumber: number, accounts: boolean): readonly string[] {
  return [
    publications(versionNumber >= 150_000),
    comments(false),
    ...(accounts ? [memberships, rights, defaultRights] : []),
    eventTriggers,
    comments(true),
  ]
}

/** The query of the roles: with their passwords, where they may be read. */
export function rolesQuery(passwords: boolean): string {
  return roles(passwords)
}
