import { Fault } from '#base/faults'
import type { ObjectName } from '#change/schema'
import type { Session } from '../connection.ts'
import { quoteName, quotePath } from '../rows-sql.ts'
import { type CatalogType, type Sameness, samenessOf } from './types.ts'

export type TargetColumn = {
  readonly name: string
  readonly number: number
  /** As `format_type` writes it. */
  readonly type: string
  /** That of a domain's values. */
  readonly baseType: string
  /** The type that a domain is of, without its modifier: what a text is cast to. */
  readonly cast: string
  readonly sameness: Sameness
  /** An explicit cast from text does just what the type's own input does. */
  readonly castable: boolean
  readonly notNull: boolean
  readonly hasDefault: boolean
  readonly generated: boolean
  readonly identity: 'always' | 'by-default' | undefined
}

export type TargetKeyColumn = {
  readonly column: TargetColumn
  /** The equality that the index knows: `operator("pg_catalog".=)`. */
  readonly equals: string
  readonly sameness: Sameness
}

/** What may refuse a row that another one is there: a unique index or an exclusion. */
export type TargetKey = {
  readonly name: string
  readonly primary: boolean
  /** Checked at once, and not when the transaction ends or is told to. */
  readonly immediate: boolean
  /** One row at most has such values, and each row can be found by them. */
  readonly identifies: boolean
  /** Undefined for one over expressions, over a part of the rows, or that is no equality. */
  readonly columns: readonly TargetKeyColumn[] | undefined
  readonly nullsConflict: boolean
}

export type TargetForm = {
  readonly name: ObjectName
  /** As it is written in statements, `only` included. */
  readonly only: string
  readonly partitioned: boolean
  readonly columns: readonly TargetColumn[]
  readonly keys: readonly TargetKey[]
}

/** Reads a table of the target from its catalog. */
export async function readTarget(
  session: Session,
  name: ObjectName,
  signal: AbortSignal,
): Promise<TargetForm> {
  const path = quotePath(name)
  const doing = `read what ${path} is`
  const [table] = await session.query(
    'select c.oid, c.relkind from pg_class c where c.oid = to_regclass($1)',
    { signal, values: [path], doing },
  )
  if (table?.['relkind'] !== 'r' && table?.['relkind'] !== 'p') {
    throw new Fault('different', `apply changes to ${path}: the target has no such table`, {
      hint: 'Make the table there as the source has it, and go on with --resume.',
    })
  }
  const values = [table['oid']]
  const columns = (await session.query(columnsSql, { signal, values, doing })).map(toColumn)
  const indexes = await session.query(keysSql, { signal, values, doing })
  const partitioned = table['relkind'] === 'p'
  return {
    name,
    only: partitioned ? path : `only ${path}`,
    partitioned,
    columns,
    keys: groupKeys(indexes, columns),
  }
}

type Row = Readonly<Record<string, string | null>>

function toColumn(row: Row): TargetColumn {
  const schema = row['type_schema'] ?? ''
  const name = row['type_name'] ?? ''
  const kind = row['type_kind'] ?? ''
  const elementName = row['element_name'] ?? undefined
  const element = elementName && {
    schema: row['element_schema'] ?? '',
    name: elementName,
    kind: row['element_kind'] ?? '',
  }
  const type: CatalogType = { schema, name, kind, element: element || undefined }
  const identity = row['identity']
  return {
    name: row['name'] ?? '',
    number: Number(row['number']),
    type: row['type'] ?? '',
    baseType: row['base_type'] ?? '',
    cast: `${quoteName(schema)}.${quoteName(name)}`,
    sameness: samenessOf(type),
    castable: row['castable'] === 't',
    notNull: row['not_null'] === 't',
    hasDefault: row['has_default'] === 't',
    generated: row['generated'] === 't',
    identity: identity === 'a' ? 'always' : identity === 'd' ? 'by-default' : undefined,
  }
}

function groupKeys(rows: readonly Row[], columns: readonly TargetColumn[]): TargetKey[] {
  const byName = new Map<string, Row[]>()
  for (const row of rows) {
    const name = row['name'] ?? ''
    byName.set(name, [...(byName.get(name) ?? []), row])
  }
  return [...byName].map(([name, parts]) => toKey(name, parts, columns))
}

function toKey(name: string, parts: readonly Row[], columns: readonly TargetColumn[]): TargetKey {
  const [first] = parts
  const known = parts.map((part): TargetKeyColumn | undefined => {
    const column = columns.find((one) => one.number === Number(part['number']))
    const operator = part['operator'] ?? undefined
    if (!column || operator === undefined) return undefined
    const sameness = part['deterministic'] === 'f' ? 'unknown' : column.sameness
    const equals = `operator(${quoteName(part['operator_schema'] ?? '')}.${operator})`
    return { column, equals, sameness: part['plain'] === 't' ? sameness : 'unknown' }
  })
  const plain = first?.['simple'] === 't' && !known.includes(undefined)
  const whole = plain ? known.flatMap((one) => one ?? []) : undefined
  return {
    name,
    primary: first?.['primary'] === 't',
    immediate: first?.['immediate'] === 't',
    identifies:
      whole !== undefined &&
      first?.['immediate'] === 't' &&
      whole.every((one) => one.column.notNull),
    columns: whole,
    nullsConflict: first?.['nulls_conflict'] === 't',
  }
}

const columnsSql = `
  select a.attname as name, a.attnum as number, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null,
    format_type(b.oid, case t.typtype when 'd' then t.typtypmod else a.atttypmod end) as base_type,
    a.atthasdef and a.attgenerated = '' or t.typdefault is not null as has_default, a.attgenerated <> '' as generated, a.attidentity as identity,
    n.nspname as type_schema, b.typname as type_name, b.typtype as type_kind,
    en.nspname as element_schema, e.typname as element_name, e.typtype as element_kind,
    not exists (select from pg_cast where castsource = 'text'::regtype and casttarget = b.oid and castfunc <> 0) as castable
  from pg_attribute a join pg_type t on t.oid = a.atttypid
    cross join lateral (
      with recursive inside(oid, kind, base) as (
        select t.oid, t.typtype, t.typbasetype
        union all select d.oid, d.typtype, d.typbasetype from inside i join pg_type d on d.oid = i.base where i.kind = 'd')
      select oid from inside where kind <> 'd') base
    join pg_type b on b.oid = base.oid join pg_namespace n on n.oid = b.typnamespace
    left join pg_type e on e.oid = b.typelem and b.typcategory = 'A' left join pg_namespace en on en.oid = e.typnamespace
  where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  order by a.attnum`

// The operators of an index's family say what it takes for equal. Classes with other rules than their type's own are not known.
const keysSql = `
  select ic.relname as name, i.indisprimary as primary, i.indimmediate as immediate,
    i.indisunique and i.indpred is null and i.indexprs is null and am.amname = 'btree' as simple,
    coalesce(to_jsonb(i) ->> 'indnullsnotdistinct', 'false') = 'true' as nulls_conflict,
    k.number, o.oprname as operator, os.nspname as operator_schema, coalesce(co.collisdeterministic, true) as deterministic,
    oc.opcdefault or oc.opcname in ('text_pattern_ops', 'varchar_pattern_ops', 'bpchar_pattern_ops') as plain
  from pg_index i join pg_class ic on ic.oid = i.indexrelid join pg_am am on am.oid = ic.relam
    cross join lateral unnest(i.indkey::int2[]) with ordinality as k(number, place)
    left join pg_opclass oc on oc.oid = (i.indclass::oid[])[k.place - 1]
    left join pg_amop p on p.amopfamily = oc.opcfamily and p.amopstrategy = 3 and p.amoplefttype = oc.opcintype
      and p.amoprighttype = oc.opcintype
    left join pg_operator o on o.oid = p.amopopr left join pg_namespace os on os.oid = o.oprnamespace
    left join pg_collation co on co.oid = (i.indcollation::oid[])[k.place - 1]
  where i.indrelid = $1 and (i.indisunique or i.indisexclusion) and i.indislive and k.place <= i.indnkeyatts
  order by not i.indisprimary, ic.relname, k.place`
