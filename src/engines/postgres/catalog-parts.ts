/** What hangs on tables and views, read from the catalog as statements that make it; `$1` is the oids of the relations. */

export const ruleSql = `
  select 'rule ' || w.rulename || ' of ' || w.ev_class::regclass as what, pg_get_ruledef(w.oid) as sql
  from pg_rewrite w where w.ev_class = any($1::oid[]) and w.rulename <> '_RETURN' order by w.oid`

export const statisticsSql = `
  select 'statistics ' || s.stxname as what, pg_get_statisticsobjdef(s.oid) as sql
  from pg_statistic_ext s where s.stxrelid = any($1::oid[]) order by s.oid`

// Columns that came with later versions are read by way of JSON: an older server has none of them.
export const settingsSql = `
  with t as (select c.*, format('%I.%I', n.nspname, c.relname) as full_name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = any($1::oid[])),
  a as (select t.full_name, t.relispartition, a.*, y.typstorage, to_jsonb(a) as all_of
    from t join pg_attribute a on a.attrelid = t.oid join pg_type y on y.oid = a.atttypid
    where a.attnum > 0 and not a.attisdropped and t.relkind in ('r', 'p', 'm'))
  select 'settings of column ' || full_name || '.' || attname as what,
    format('alter table %s alter column %I %s', full_name, attname, x) as sql
  from a cross join lateral (values
    (case when attstorage <> typstorage then 'set storage ' ||
      case attstorage when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main' end end),
    (case all_of->>'attcompression' when 'p' then 'set compression pglz' when 'l' then 'set compression lz4' end),
    (case when (all_of->>'attstattarget')::int >= 0 then 'set statistics ' || (all_of->>'attstattarget') end),
    (case when attoptions is not null then format('set (%s)', array_to_string(attoptions, ', ')) end)) v(x)
  where x is not null
  union all
  select 'default of column ' || full_name || '.' || a.attname,
    format('alter table only %s alter column %I %s', full_name, a.attname, x)
  from a join pg_inherits i on i.inhrelid = a.attrelid and i.inhseqno = 1 and i.inhparent = any($1::oid[])
  join pg_attribute b on b.attrelid = i.inhparent and b.attname = a.attname and not b.attisdropped
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  left join pg_attrdef e on e.adrelid = b.attrelid and e.adnum = b.attnum
  cross join lateral (values
    (case when pg_get_expr(d.adbin, d.adrelid) is distinct from pg_get_expr(e.adbin, e.adrelid)
      then coalesce('set default ' || pg_get_expr(d.adbin, d.adrelid), 'drop default') end),
    (case when a.attnotnull and not b.attnotnull then 'set not null' end)) v(x)
  where x is not null and a.attgenerated = '' and (a.relispartition or not a.attislocal)
  union all
  select 'settings of ' || full_name, format('alter table %s %s', full_name, x)
  from t cross join lateral (values
    (case relreplident when 'f' then 'replica identity full' when 'n' then 'replica identity nothing' when 'i' then
      (select format('replica identity using index %I', k.relname) from pg_index i join pg_class k on k.oid = i.indexrelid
       where i.indrelid = t.oid and i.indisreplident) end),
    (case when relforcerowsecurity then 'force row level security' end),
    ((select format('cluster on %I', k.relname) from pg_index i join pg_class k on k.oid = i.indexrelid
      where i.indrelid = t.oid and i.indisclustered))) v(x)
  where x is not null and relkind in ('r', 'p')
  union all
  select 'state of trigger ' || g.tgname, format('alter table %s %s trigger %I', full_name,
    case g.tgenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, g.tgname)
  from t join pg_trigger g on g.tgrelid = t.oid where not g.tgisinternal and g.tgenabled <> 'O'
  union all
  select 'state of rule ' || w.rulename, format('alter table %s %s rule %I', full_name,
    case w.ev_enabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, w.rulename)
  from t join pg_rewrite w on w.ev_class = t.oid where w.rulename <> '_RETURN' and w.ev_enabled <> 'O'`

export const triggerSql = `
  select 'trigger ' || t.tgname || ' of ' || t.tgrelid::regclass as what, pg_get_triggerdef(t.oid) as sql
  from pg_trigger t where t.tgrelid = any($1::oid[]) and not t.tgisinternal 
    and coalesce((to_jsonb(t)->>'tgparentid')::oid, 0) = 0 order by t.oid`

export const policySql = `
  select 'row security of ' || c.oid::regclass as what,
    format('alter table %I.%I enable row level security', n.nspname, c.relname) as sql
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = any($1::oid[]) and c.relrowsecurity
  union all
  select 'policy ' || p.policyname || ' of ' || format('%I.%I', p.schemaname, p.tablename),
    format('create policy %I on %I.%I as %s for %s to %s%s%s', p.policyname, p.schemaname, p.tablename, p.permissive, p.cmd,
      (select string_agg(case r when 'public' then 'public' else quote_ident(r) end, ', ') from unnest(p.roles) r),
      case when p.qual is not null then format(' using (%s)', p.qual) else '' end,
      case when p.with_check is not null then format(' with check (%s)', p.with_check) else '' end)
  from pg_policies p join pg_class c on c.relname = p.tablename join pg_namespace n on n.oid = c.relnamespace and n.nspname = p.schemaname
  where c.oid = any($1::oid[])`

export const partCommentsSql = `
  select 'comment on ' || x.what as what, format('comment on %s is %L', x.what, d.description) as sql
  from (
    select format('column %s.%I', format('%I.%I', n.nspname, c.relname), a.attname) as what, 'pg_class'::regclass as classid, c.oid, a.attnum as sub
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
    where c.oid = any($1::oid[]) and a.attnum > 0 and not a.attisdropped
    union all
    select format('index %I.%I', n.nspname, x.relname), 'pg_class'::regclass, x.oid, 0
    from pg_index i join pg_class x on x.oid = i.indexrelid join pg_namespace n on n.oid = x.relnamespace
    where i.indrelid = any($1::oid[])
    union all
    select format('constraint %I on %s', k.conname, format('%I.%I', n.nspname, c.relname)), 'pg_constraint'::regclass, k.oid, 0
    from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any($1::oid[])
    union all
    select format('trigger %I on %s', t.tgname, format('%I.%I', n.nspname, c.relname)), 'pg_trigger'::regclass, t.oid, 0
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any($1::oid[]) and not t.tgisinternal
    union all
    select format('policy %I on %s', p.polname, format('%I.%I', n.nspname, c.relname)), 'pg_policy'::regclass, p.oid, 0
    from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any($1::oid[])
    union all
    select format('rule %I on %s', w.rulename, format('%I.%I', n.nspname, c.relname)), 'pg_rewrite'::regclass, w.oid, 0
    from pg_rewrite w join pg_class c on c.oid = w.ev_class join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any($1::oid[])
  ) x join pg_description d on d.classoid = x.classid and d.objoid = x.oid and d.objsubid = x.sub`
