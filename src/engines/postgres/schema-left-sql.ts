import { notOurs, userSchema } from './schema-sql.ts'

const named = (
  kind: string,
  name: string,
  from: string,
  schema: string,
  oid: string,
  catalog: string,
) => `
  select '${kind}' as kind, ${name} as name from ${from} join pg_namespace n on n.oid = ${schema}
  where ${userSchema('n.nspname')} and ${notOurs(catalog, oid)}`

/** What a database holds that is not carried, by kind: `kind`, `names`. */
export const leftSql = `
  select kind, string_agg(name, ', ' order by name) as names from (
    ${named('operator', 'o.oid::regoperator::text', 'pg_operator o', 'o.oprnamespace', 'o.oid', 'pg_operator')}
    union all
    ${named('operator class', 'c.opcname::text', 'pg_opclass c', 'c.opcnamespace', 'c.oid', 'pg_opclass')}
    union all
    ${named('text search configuration', 'c.cfgname::text', 'pg_ts_config c', 'c.cfgnamespace', 'c.oid', 'pg_ts_config')}
    union all
    ${named('text search dictionary', 'd.dictname::text', 'pg_ts_dict d', 'd.dictnamespace', 'd.oid', 'pg_ts_dict')}
    union all
    ${named('conversion', 'c.conname::text', 'pg_conversion c', 'c.connamespace', 'c.oid', 'pg_conversion')}
    union all
    select 'range type with a canonical function', t.typname from pg_range r join pg_type t on t.oid = r.rngtypid
    join pg_namespace n on n.oid = t.typnamespace
    where r.rngcanonical <> 0 and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')}
    union all
    select 'base type', t.typname from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where t.typtype = 'b' and t.typelem = 0 and ${userSchema('n.nspname')} and ${notOurs('pg_type', 't.oid')}
    union all
    select 'foreign server', srvname from pg_foreign_server s where ${notOurs('pg_foreign_server', 's.oid')}
    union all
    select 'foreign table', c.oid::regclass::text from pg_class c where c.relkind = 'f'
    union all
    select 'procedural language', lanname from pg_language l where l.oid >= 16384 and ${notOurs('pg_language', 'l.oid')}
    union all
    select 'subscription', subname from pg_subscription
    where subdbid = (select oid from pg_database where datname = current_database())
    union all
    select 'index that is not valid', i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indrelid
    where not i.indisvalid and c.relkind <> 'p'
    union all
    select 'tablespace of', c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.reltablespace <> 0 and ${userSchema('n.nspname')}
    union all
    select 'composite type of table', c.oid::regclass::text from pg_class c where c.reloftype <> 0
    union all
    select 'rows of the configuration of extension', e.extname from pg_extension e where e.extconfig is not null
    union all
    select 'setting of the database', coalesce(r.rolname || ': ', '') || split_part(s, '=', 1) from pg_db_role_setting x
    cross join unnest(x.setconfig) s left join pg_roles r on r.oid = x.setrole
    where x.setdatabase = (select oid from pg_database where datname = current_database())
    union all
    select 'security label', x.label from pg_seclabel x
  ) x group by kind order by kind`
