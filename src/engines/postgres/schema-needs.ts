import type { SchemaObject, Stage } from '#change/schema'
import type { Session } from './connection.ts'

/** An object as it is read: what it needs is told by keys of the catalog. */
export type Draft = Omit<SchemaObject, 'needs'> & { readonly key: string }

/** Which objects need which, by their keys. */
export type Needs = ReadonlyMap<string, ReadonlySet<string>>

const stages: readonly Stage[] = ['rows', 'table', 'end']

/**
 * Reads which object needs which from the catalog's own record. What is a part of something else (a default, the rule of
 * a view, the index of a key, a row type) counts as that.
 */
export async function readNeeds(session: Session, signal: AbortSignal): Promise<Needs> {
  const rows = await session.query(needsSql, { signal, doing: 'read what needs what' })
  const needs = new Map<string, Set<string>>()
  for (const row of rows) {
    const [from, to] = [row['from_key'] ?? '', row['to_key'] ?? '']
    const set = needs.get(from) ?? new Set()
    needs.set(from, set.add(to))
  }
  return needs
}

/**
 * Objects in an order in which they can be made, each with the ids that it needs in its stage. What is needed early is
 * made early: a view that a function returns stands before the rows.
 */
export function inOrder(drafts: readonly Draft[], needs: Needs): readonly SchemaObject[] {
  const byKey = new Map(drafts.map((draft) => [draft.key, draft]))
  const stageOf = new Map(drafts.map((draft) => [draft.key, draft.stage]))
  const neededBy = (key: string) => [...(needs.get(key) ?? [])].filter((other) => byKey.has(other))
  const pull = (key: string, stage: Stage) => {
    for (const other of neededBy(key)) {
      if (rank(stageOf.get(other)) <= rank(stage)) continue
      stageOf.set(other, stage)
      pull(other, stage)
    }
  }
  for (const draft of drafts) pull(draft.key, stageOf.get(draft.key) ?? draft.stage)
  const ordered: SchemaObject[] = []
  const seen = new Set<string>()
  const visit = (draft: Draft) => {
    if (seen.has(draft.key)) return
    seen.add(draft.key)
    const { key, ...object } = draft
    const mine = neededBy(key)
    for (const other of mine) {
      const needed = byKey.get(other)
      if (needed) visit(needed)
    }
    const stage = stageOf.get(key) ?? object.stage
    const same = mine.filter((other) => stageOf.get(other) === stage)
    ordered.push({ ...object, stage, needs: same.map((other) => byKey.get(other)?.id ?? '') })
  }
  for (const draft of drafts) visit(draft)
  return ordered
}

function rank(stage: Stage | undefined): number {
  return stage === undefined ? 0 : stages.indexOf(stage)
}

// `part` maps what has no statement of its own to what brings it along. An owned sequence does not need its table: the
// default of the table needs the sequence.
const needsSql = `
  with part(cls, oid, to_cls, to_oid) as (
    select d.classid, d.objid, d.refclassid, d.refobjid from pg_depend d where d.deptype = 'e'
    union all select 'pg_attrdef'::regclass, oid, 'pg_class'::regclass, adrelid from pg_attrdef
    union all select 'pg_constraint'::regclass, oid, 'pg_class'::regclass, conrelid from pg_constraint
      where conrelid <> 0 and contype in ('c', 'n') and convalidated
    union all select 'pg_constraint'::regclass, oid, 'pg_type'::regclass, contypid from pg_constraint where contypid <> 0
    union all select 'pg_rewrite'::regclass, oid, 'pg_class'::regclass, ev_class from pg_rewrite where rulename = '_RETURN'
    union all select 'pg_type'::regclass, t.oid, 'pg_class'::regclass, t.typrelid
      from pg_type t join pg_class c on c.oid = t.typrelid where c.relkind <> 'c'
    union all select 'pg_class'::regclass, oid, 'pg_type'::regclass, reltype from pg_class where relkind = 'c'
    union all select 'pg_type'::regclass, oid, 'pg_type'::regclass, typelem from pg_type where typcategory = 'A' and typelem <> 0
    union all select 'pg_type'::regclass, (to_jsonb(r) ->> 'rngmultitypid')::oid, 'pg_type'::regclass, rngtypid from pg_range r
      where to_jsonb(r) ? 'rngmultitypid'
    union all select 'pg_class'::regclass, conindid, 'pg_constraint'::regclass, oid from pg_constraint where contype in ('p', 'u', 'x')
    union all select d.classid, d.objid, d.refclassid, d.refobjid from pg_depend d join pg_class c on c.oid = d.objid
      where d.classid = 'pg_class'::regclass and c.relkind = 'S' and d.deptype = 'i'
    union all select 'pg_publication_rel'::regclass, oid, 'pg_publication'::regclass, prpubid from pg_publication_rel
    union all select d.classid, d.objid, d.refclassid, d.refobjid from pg_depend d
      where d.refclassid = 'pg_publication'::regclass and d.deptype = 'a'
  ),
  edge as (
    select classid, objid, refclassid, refobjid from pg_depend d
    where d.objid >= 16384 and d.refobjid >= 16384 and d.deptype in ('n', 'a', 'i') and d.classid <> 0
      and not (d.classid = 'pg_class'::regclass and d.deptype = 'a' and exists (select from pg_class c where c.oid = d.objid and c.relkind = 'S'))
  ),
  whole as (
    select coalesce(p2.to_cls, p1.to_cls, e.classid) as cls, coalesce(p2.to_oid, p1.to_oid, e.objid) as oid,
      coalesce(r2.to_cls, r1.to_cls, e.refclassid) as to_cls, coalesce(r2.to_oid, r1.to_oid, e.refobjid) as to_oid
    from edge e
    left join part p1 on p1.cls = e.classid and p1.oid = e.objid
    left join part p2 on p2.cls = p1.to_cls and p2.oid = p1.to_oid
    left join part r1 on r1.cls = e.refclassid and r1.oid = e.refobjid
    left join part r2 on r2.cls = r1.to_cls and r2.oid = r1.to_oid
  )
  select distinct c.relname || ':' || w.oid as from_key, t.relname || ':' || w.to_oid as to_key
  from whole w join pg_class c on c.oid = w.cls join pg_class t on t.oid = w.to_cls
  where (w.cls, w.oid) <> (w.to_cls, w.to_oid)
  union
  select 'owned:' || d.objid, x.to_key from pg_depend d
    cross join lateral (values ('pg_class:' || d.objid), ('pg_class:' || d.refobjid)) x(to_key)
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype = 'a'
  union
  select 'attached:' || i.inhrelid, coalesce('pg_constraint:' || k.oid, 'pg_class:' || x.oid) from pg_inherits i
    cross join lateral (values (i.inhrelid), (i.inhparent)) x(oid)
    left join pg_constraint k on k.conindid = x.oid and k.contype in ('p', 'u', 'x')
  union
  select 'refreshed:' || oid, 'pg_class:' || oid from pg_class where relkind = 'm'`
