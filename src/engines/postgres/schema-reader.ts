import type { Finding } from '#change/finding'
import type { ObjectKind, Schema, Selection, Stage } from '#change/schema'
import type { Session } from './connection.ts'
import type { ServerFacts } from './facts.ts'
import { largeObjects, quotePath, settingsSql } from './rows-sql.ts'
import { leftSql } from './schema-left-sql.ts'
import { type Draft, inOrder, type Needs, readNeeds } from './schema-needs.ts'
import { lastObjects, rolesQuery } from './schema-rest-sql.ts'
import { looseObjects, ownedSequences, valueObjects } from './schema-sql.ts'
import { readShapes } from './schema-shapes.ts'
import { tableObjects } from './schema-tables-sql.ts'

/** What the catalog's words depend on, the same for all who read them and for those who run them. */
export const catalogSettings = settingsSql([
  ['client_encoding', 'UTF8'],
  ['datestyle', 'ISO'],
  ['intervalstyle', 'postgres'],
  ['timezone', 'UTC'],
  ['extra_float_digits', '3'],
  ['bytea_output', 'hex'],
  ['xmloption', 'content'],
  ['quote_all_identifiers', 'off'],
  ['standard_conforming_strings', 'on'],
  ['check_function_bodies', 'off'],
  ['default_table_access_method', 'heap'],
  ['default_tablespace', ''],
])

/** Reads all objects that a selection takes in, as of one moment. */
export async function readSchema(
  session: Session,
  facts: ServerFacts,
  selection: Selection,
  signal: AbortSignal,
): Promise<Schema> {
  await session.query(catalogSettings, { signal })
  await session.query('begin isolation level repeatable read, read only', { signal })
  try {
    const { accounts } = selection
    const [tablesSql = '', ...tableParts] = tableObjects
    const queries = [
      ...(accounts ? [rolesQuery(await mayReadPasswords(session, signal))] : []),
      ...looseObjects,
      tablesSql,
      ...ownedSequences,
      ...tableParts,
      ...valueObjects,
      ...lastObjects(facts.versionNumber, accounts),
    ]
    const drafts: Draft[] = []
    for (const sql of queries) drafts.push(...(await readDrafts(session, sql, signal)))
    const needs: Map<string, ReadonlySet<string>> = withRefreshes(await readNeeds(session, signal))
    const placed = place(drafts, needs)
    const { taken, findings } = select(placed, needs, selection)
    const tables = await readShapes(session, selection, signal)
    return {
      engine: 'postgres',
      flavor: facts.flavor,
      version: facts.version,
      objects: inOrder(taken, needs),
      tables,
      findings: [
        ...findings,
        ...checkNames(taken, selection),
        ...(await readLeft(session, signal)),
      ],
    }
  } finally {
    if (session.alive && !signal.aborted) await session.query('rollback', { signal })
  }
}

async function readDrafts(session: Session, sql: string, signal: AbortSignal): Promise<Draft[]> {
  const rows = await session.query(sql, { signal, doing: 'read the catalog' })
  return rows.map((row) => {
    const [schema, table] = [row['schema'] ?? undefined, row['on_name'] ?? undefined]
    const statements = JSON.parse(row['sql'] ?? '[]') as (string | null)[]
    return {
      key: row['key'] ?? '',
      id: row['id'] ?? '',
      kind: row['kind'] as ObjectKind,
      name: schema === undefined ? [row['name'] ?? ''] : [schema, row['name'] ?? ''],
      table: table === undefined ? undefined : [row['on_schema'] ?? '', table],
      stage: row['stage'] as Stage,
      statements: statements.filter((one) => one !== null),
    }
  })
}

// Rights are of what they are rights on: named like it, and chosen with it.
function place(drafts: readonly Draft[], needs: Map<string, ReadonlySet<string>>): Draft[] {
  const byKey = new Map(drafts.map((draft) => [draft.key, draft]))
  return drafts.flatMap((draft) => {
    if (!draft.key.startsWith('right:')) return [draft]
    const on = draft.key.slice('right:'.length)
    if (on.startsWith('large:')) return [{ ...draft, name: largeObjects }]
    const about = byKey.get(on)
    if (about) needs.set(draft.key, new Set([on]))
    return about ? [{ ...draft, name: about.name, table: about.table }] : []
  })
}

async function mayReadPasswords(session: Session, signal: AbortSignal): Promise<boolean> {
  const [row] = await session.query(
    `select has_table_privilege('pg_catalog.pg_authid', 'SELECT') as may`,
    { signal },
  )
  return row?.['may'] === 't'
}

// Statements, bodies of functions and views name what they speak of: none of them is rewritten yet.
function checkNames(taken: readonly Draft[], selection: Selection): readonly Finding[] {
  const renamed = taken.filter(
    ({ key, name }) =>
      key.startsWith('pg_class:') && quotePath(selection.map(name)) !== quotePath(name),
  )
  return renamed.map(({ id, name }) => ({
    severity: 'blocks',
    code: 'cannot-rename',
    said: `${id} cannot become ${selection.map(name).join('.')}: names are not changed on PostgreSQL yet`,
    mend: 'leave out the map, and rename on the target when the copy is done',
  }))
}

// Kinds that are not read yet, and what belongs to another server: to be made by hand.
async function readLeft(session: Session, signal: AbortSignal): Promise<readonly Finding[]> {
  const rows = await session.query(leftSql, { signal, doing: 'read what else there is' })
  return rows.map((row) => ({
    severity: 'warns',
    code: 'not-carried',
    said: `not carried: ${row['kind']} ${row['names']}`,
  }))
}

// A materialised view is filled when those that it reads, by whatever other views, have been.
function withRefreshes(needs: Needs): Map<string, ReadonlySet<string>> {
  const all = new Map(needs)
  for (const [key, direct] of needs) {
    if (!key.startsWith('refreshed:')) continue
    const wanted = new Set(direct)
    const seen = new Set<string>()
    const walk = (from: string) => {
      for (const other of needs.get(from) ?? []) {
        if (seen.has(other)) continue
        seen.add(other)
        const refresh = other.replace(/^pg_class:/, 'refreshed:')
        if (needs.has(refresh)) wanted.add(refresh)
        walk(other)
      }
    }
    for (const own of direct) walk(own)
    wanted.delete(key)
    all.set(key, wanted)
  }
  return all
}

const chosenByName: ReadonlySet<ObjectKind> = new Set(['table', 'view', 'materialized-view'])

/**
 * What a selection takes in: what it accepts by name, with what hangs on accepted tables, and what those need. What needs a
 * table or a view that is not accepted is left out, and told.
 */
function select(
  drafts: readonly Draft[],
  needs: Needs,
  selection: Selection,
): { readonly taken: readonly Draft[]; readonly findings: readonly Finding[] } {
  const byKey = new Map(drafts.map((draft) => [draft.key, draft]))
  const barred = new Map<string, string>()
  const bar = (draft: Draft): string | undefined => {
    const known = barred.get(draft.key)
    if (known !== undefined) return known === '' ? undefined : known
    // A circle bars nobody.
    barred.set(draft.key, '')
    let reason: string | undefined
    if (chosenByName.has(draft.kind) && !selection.accepts(draft.name)) reason = draft.id
    if (draft.table && !selection.accepts(draft.table)) reason = `table ${draft.table.join('.')}`
    for (const key of needs.get(draft.key) ?? []) {
      const needed = byKey.get(key)
      reason ??= needed && bar(needed)
    }
    barred.set(draft.key, reason ?? '')
    return reason
  }
  const taken = new Set<Draft>()
  const findings: Finding[] = []
  const take = (draft: Draft) => {
    if (taken.has(draft)) return
    taken.add(draft)
    for (const key of needs.get(draft.key) ?? []) {
      const needed = byKey.get(key)
      if (needed) take(needed)
    }
  }
  for (const draft of drafts) {
    const wanted = selection.accepts(draft.table ?? draft.name)
    if (!wanted) continue
    const reason = bar(draft)
    if (reason === undefined) take(draft)
    else if (reason !== draft.id) {
      findings.push({
        severity: 'warns',
        code: 'needs-what-is-left-out',
        said: `${draft.id} is left out: it needs ${reason}, which is not chosen`,
      })
    }
  }
  return { taken: drafts.filter((draft) => taken.has(draft)), findings }
}
