import type { Finding } from '#change/finding'
import type { Schema, SchemaObject, Selection, TableShape } from '#change/schema'
import {
  type Catalog,
  hasRows,
  isTransactional,
  readCatalog,
  type Sequence,
  type Table,
} from './catalog.ts'
import { ownDatabase } from './copy-marks.ts'
import { splitTable } from './ddl.ts'
import type { Flavor } from './flavor.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { readAccounts } from './schema-accounts.ts'
import { idOf, NameMap } from './schema-names.ts'
import { readDefaultCollations, sayCollations } from './schema-collations.ts'
import { readPrograms } from './schema-programs.ts'
import { readShapes } from './schema-shapes.ts'
import { readViews } from './schema-views.ts'
import { createDatabase } from './script.ts'
import { readWords, replaceAt } from './sql-words.ts'
import { quoteName } from './sql.ts'

/** A statement that somebody holds is waited for so long: nothing of ours is held meanwhile. */
const waitSeconds = 60

/** What the parts of a schema are read into. */
export type Gathered = { readonly objects: SchemaObject[]; readonly findings: Finding[] }

/** All objects that a selection takes in, as statements with the target's names. */
export async function readMysqlSchema(
  source: { readonly endpoint: Endpoint; readonly flavor: Flavor },
  selection: Selection,
  { signal }: { readonly signal: AbortSignal },
): Promise<Schema> {
  const { endpoint, flavor } = source
  await using session = await Session.open(endpoint, { signal })
  await session.query(`SET SESSION lock_wait_timeout = ${waitSeconds}`, { signal })
  const read = await readCatalog(session, flavor, signal, (database, name) => {
    if (database === ownDatabase) return false
    return name === undefined || selection.accepts([database, name])
  })
  const catalog = inFull(read, await readDefaultCollations(session, signal))
  const names = new NameMap(selection, namesOf(catalog))
  const into: Gathered = { objects: [], findings: [] }
  if (selection.accounts) await readAccounts(session, flavor, { names, into, signal })
  readDatabases(catalog, selection, names, into)
  for (const sequence of catalog.sequences) readSequence(sequence, names, into)
  for (const table of catalog.tables) readTable(table, names, into)
  readViews(catalog, names, into)
  readPrograms(catalog, await readDefaults(session, signal), names, into)
  const tables = await readShapes(session, catalog.tables.filter(hasRows), names, signal)
  noteKeyless(tables, into)
  const { family, version } = flavor
  return { engine: 'mysql', flavor: family, version, ...into, tables }
}

/** With all collations said: what a character set means by itself differs from version to version. */
function inFull(catalog: Catalog, collations: ReadonlyMap<string, string>): Catalog {
  const say = <Made extends { readonly create: string }>(made: Made): Made => ({
    ...made,
    create: sayCollations(made.create, collations),
  })
  return { ...catalog, databases: catalog.databases.map(say), tables: catalog.tables.map(say) }
}

/** Databases' own collations. */
async function readDefaults(session: Session, signal: AbortSignal): Promise<Map<string, string>> {
  const rows = await session.texts(
    'SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA',
    { signal },
  )
  return new Map(rows.map(([name, collation]) => [name ?? '', collation ?? '']))
}

function* namesOf(catalog: Catalog): Generator<readonly [string, string], void, void> {
  const { tables, sequences, views, programs } = catalog
  for (const { database, name } of [...tables, ...sequences, ...views, ...programs]) {
    yield [database, name]
  }
}

function readDatabases(
  catalog: Catalog,
  selection: Selection,
  names: NameMap,
  into: Gathered,
): void {
  const used = new Set([...namesOf(catalog)].map(([database]) => database))
  for (const { name, create } of catalog.databases) {
    if (!used.has(name) && !selection.accepts([name])) continue
    const own = [...readWords(create)].find((word) => word.kind === 'name')
    const target = names.database(name)
    const sql = own ? replaceAt(create, [{ ...own, by: quoteName(target) }]) : create
    into.objects.push({
      id: idOf('database', name),
      kind: 'database',
      name: [name],
      target: [target],
      stage: 'rows',
      statements: [createDatabase(sql)],
      needs: [],
    })
  }
}

function readSequence(sequence: Sequence, names: NameMap, into: Gathered): void {
  const { database, name, create, next, cycles } = sequence
  const at = names.quoted(database, name)
  const id = idOf('sequence', database, name)
  const target = names.object(database, name)
  const common = { kind: 'sequence', name: [database, name], target, needs: [] } as const
  into.objects.push({
    ...common,
    id,
    stage: 'rows',
    statements: [names.table(create, database, name)],
  })
  into.objects.push({
    ...common,
    id: idOf('value of sequence', database, name),
    stage: 'end',
    statements: [`SELECT SETVAL(${at}, ${next}, 0, ${cycles})`],
  })
}

function readTable(table: Table, names: NameMap, into: Gathered): void {
  const { database, name, engine } = table
  const create = names.table(table.create, database, name)
  const target = names.object(database, name)
  const at = names.quoted(database, name)
  const id = idOf('table', database, name)
  // Where no transaction holds the rows they come in one piece, and indexes with them.
  const { create: bare, indexes, foreignKeys } = splitTable(create, isTransactional(engine))
  const own = { name: [database, name], target, table: [database, name], needs: [] } as const
  into.objects.push({
    ...own,
    id,
    kind: 'table',
    stage: 'rows',
    statements: [bare],
    needs: [...neededSequences(table, names)],
  })
  if (!hasRows(table)) {
    into.findings.push({
      severity: 'notes',
      code: 'rows-elsewhere',
      said: `${id}: engine ${engine} keeps its rows elsewhere; the table is made, no rows are copied`,
    })
  }
  if (indexes.length > 0) {
    into.objects.push({
      ...own,
      id: `indexes of ${id}`,
      kind: 'index',
      stage: hasRows(table) ? 'table' : 'end',
      statements: indexes.map((group) => `ALTER TABLE ${at} ${group.join(', ')}`),
    })
  }
  if (foreignKeys.length > 0) {
    into.objects.push({
      ...own,
      id: `foreign keys of ${id}`,
      kind: 'foreign-key',
      stage: 'end',
      statements: [`ALTER TABLE ${at} ${foreignKeys.join(', ')}`],
    })
  }
}

/** Defaults may take the next value of one. */
function* neededSequences(table: Table, names: NameMap): Generator<string, void, void> {
  if (!/\bnextval\(/i.test(table.create)) return
  for (const [database, name] of names.pairs(table.create).seen) {
    yield idOf('sequence', database, name)
  }
}

function noteKeyless(tables: readonly TableShape[], into: Gathered): void {
  const keyless = tables.filter((table) => !table.keys.some((key) => key.identifies))
  if (keyless.length === 0) return
  const shown = keyless.slice(0, 5).map((table) => table.name.join('.'))
  const more = keyless.length > 5 ? ` and ${keyless.length - 5} more` : ''
  into.findings.push({
    severity: 'notes',
    code: 'no-key',
    said: `without a key that tells rows apart, copied in one piece each: ${shown.join(', ')}${more}`,
  })
}
