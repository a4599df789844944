import type { ColumnShape, KeyShape, Selection, TableShape } from '#change/schema'
import type { Session } from './connection.ts'
import { largeObjects } from './rows-sql.ts'

/** The tables that hold rows themselves, as they are: leaves of partitioned ones each alone. */
export async function readShapes(
  session: Session,
  selection: Selection,
  signal: AbortSignal,
): Promise<readonly TableShape[]> {
  const rows = await session.query(shapesSql, { signal, doing: 'read the tables' })
  const shapes = rows.map((row) => {
    const name = [row['nspname'] ?? '', row['relname'] ?? '']
    return {
      name,
      target: selection.map(name),
      columns: JSON.parse(row['columns'] ?? '[]') as ColumnShape[],
      keys: JSON.parse(row['keys'] ?? '[]') as KeyShape[],
      rowsEstimate: Number(row['rows'] ?? 0),
      sizeBytes: Number(row['size'] ?? 0),
    }
  })
  const chosen = shapes.filter((shape) => selection.accepts(shape.name))
  const large = selection.accepts(largeObjects) ? await largeObjectShape(session, signal) : []
  return [...chosen, ...large]
}

async function largeObjectShape(session: Session, signal: AbortSignal): Promise<TableShape[]> {
  const [row] = await session.query(
    `select count(*) as count, coalesce(pg_table_size('pg_catalog.pg_largeobject'), 0) as size
     from pg_largeobject_metadata`,
    { signal, doing: 'count the large objects' },
  )
  const rowsEstimate = Number(row?.['count'] ?? 0)
  if (rowsEstimate === 0) return []
  const column = (name: string, type: string): ColumnShape => ({
    name,
    type,
    nullable: false,
    generated: false,
  })
  return [
    {
      name: largeObjects,
      target: largeObjects,
      columns: [column('loid', 'oid'), column('pageno', 'integer'), column('data', 'bytea')],
      keys: [{ name: 'pages', primary: true, columns: ['loid', 'pageno'], identifies: true }],
      rowsEstimate,
      sizeBytes: Number(row?.['size'] ?? 0),
    },
  ]
}

const shapesSql = `
  select n.nspname, c.relname, greatest(c.reltuples, 0)::bigint as rows, pg_table_size(c.oid) as size,
    (select json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'nullable', not a.attnotnull,
        'generated', a.attgenerated <> '', 'defaultSql', pg_get_expr(d.adbin, d.adrelid), 'charset', getdatabaseencoding(),
        'collation', case when a.attcollation <> 0 then (select format('%I.%I', cn.nspname, co.collname) from pg_collation co
          join pg_namespace cn on cn.oid = co.collnamespace where co.oid = a.attcollation) end) order by a.attnum)
     from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
    (select json_agg(json_build_object('name', x.relname, 'primary', i.indisprimary,
        'columns', (select json_agg(a.attname order by k.ordinality) from unnest(i.indkey::int2[]) with ordinality k(attnum, ordinality)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum where k.ordinality <= i.indnkeyatts),
        'identifies', i.indpred is null and i.indimmediate and not exists (select from unnest(i.indkey::int2[]) with ordinality k(attnum, ordinality)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum where k.ordinality <= i.indnkeyatts and not a.attnotnull))
        order by not i.indisprimary, x.relname)
     from pg_index i join pg_class x on x.oid = i.indexrelid
     where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indexprs is null) as keys
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname not like 'pg\\_%' and n.nspname not in ('information_schema', 'redoubt')
    and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
  order by n.nspname, c.relname`
