import type { BlockCut } from './chunks.ts'
import type { Session } from './connection.ts'
import { parseRange } from './chunks.ts'

const pageBytes = 2048

/** The pages of the large objects of a range of oids; an object without any as one empty page. */
export function largeObjectsSql(range: string): string {
  const { first, end } = parseRange(range)
  const to = end === undefined ? '' : ` and m.oid < ${end}`
  return `select m.oid as loid, coalesce(l.pageno, 0) as pageno, coalesce(l.data, '') as data
    from pg_catalog.pg_largeobject_metadata m left join pg_catalog.pg_largeobject l on l.loid = m.oid
    where m.oid >= ${first}${to} order by 1, 2`
}

/** Cuts the large objects into ranges of oids of about so many bytes. */
export async function cutLargeObjects(
  session: Session,
  chunkBytes: number,
  signal: AbortSignal,
): Promise<readonly BlockCut[]> {
  // An oid each time that the sum of what went before has passed another chunk.
  const rows = await session.query(
    `select min(oid::text::bigint) as first, sum(bytes) as size from (
       select oid, bytes, ((sum(bytes) over (order by oid) - bytes) / $1::bigint)::bigint as chunk from (
         select m.oid, greatest(1, count(l.pageno)) * ${pageBytes} as bytes
         from pg_largeobject_metadata m left join pg_largeobject l on l.loid = m.oid group by m.oid) x) y
     group by chunk order by 1`,
    { signal, values: [Math.max(pageBytes, chunkBytes)], doing: 'measure the large objects' },
  )
  const firsts = rows.map((row) => Number(row['first']))
  return rows.map((row, i) => ({
    range: `${i === 0 ? 0 : firsts[i]}-${firsts[i + 1] ?? ''}`,
    sizeBytes: Number(row['size'] ?? 0),
  }))
}

/** Where the pages of a chunk come in, and what makes large objects of them. */
export const stageLargeObjects =
  'create temporary table redoubt_large_object (loid oid, pageno integer, data bytea) on commit drop'

export const stagedColumns = 'pg_temp.redoubt_large_object (loid, pageno, data)'

export const makeLargeObjects = `
  select pg_catalog.lo_create(loid) from (select distinct loid from pg_temp.redoubt_large_object) x;
  select pg_catalog.lo_put(loid, pageno::bigint * ${pageBytes}, data) from pg_temp.redoubt_large_object where data <> ''`
