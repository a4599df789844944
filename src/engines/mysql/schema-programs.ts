import type { ObjectKind, SchemaObject } from '#change/schema'
import type { Catalog, Program } from './catalog.ts'
import { toText } from './layout.ts'
import {
  idOf,
  type Modes,
  modesOf,
  type NameMap,
  renameProgram,
  renameTriggerTable,
} from './schema-names.ts'
import type { Gathered } from './schema-read.ts'
import { writeStatement } from './schema-statement.ts'
import { programSettings } from './script.ts'
import { maskStrings } from './sql-words.ts'
import { quoteName } from './sql.ts'

const kinds: Readonly<Record<Program['kind'], ObjectKind>> = {
  procedure: 'procedure',
  function: 'function',
  package: 'other',
  'package body': 'other',
  trigger: 'trigger',
  event: 'event',
}

/** Routines, triggers and events, with the settings that each keeps for its whole life. */
export function readPrograms(
  catalog: Catalog,
  defaults: ReadonlyMap<string, string>,
  names: NameMap,
  into: Gathered,
): void {
  for (const database of new Set(catalog.programs.map((program) => program.database))) {
    const programs = catalog.programs.filter((program) => program.database === database)
    const own = defaults.get(database)
    // A program keeps the default of its database as it was when it was made.
    const strange = programs.some(
      (program) => own !== undefined && program.databaseCollation !== own,
    )
    const made = programs.map((program) => readProgram(program, names, into, strange))
    into.objects.push(...made)
    if (strange && own !== undefined) {
      into.objects.push({
        id: idOf('default of database', database),
        kind: 'other',
        name: [database],
        target: [names.database(database)],
        stage: 'end',
        statements: [alter(names.database(database), own)],
        needs: made.map(({ id }) => id),
      })
    }
  }
  noteEvents(catalog, into)
}

function alter(database: string, collation: string): string {
  return `ALTER DATABASE ${quoteName(database)} COLLATE ${collation}`
}

function readProgram(
  program: Program,
  names: NameMap,
  into: Gathered,
  strange: boolean,
): SchemaObject {
  const { kind, database, name } = program
  const id = idOf(kind, database, name)
  const target = names.object(database, name)
  return {
    id,
    kind: kinds[kind],
    name: [database, name],
    target,
    ...(program.table === undefined ? {} : { table: [database, program.table] }),
    stage: 'end',
    statements: [
      ...(strange ? [alter(target[0], program.databaseCollation)] : []),
      `USE ${quoteName(target[0])}`,
      ...programSettings(program),
      writeStatement(textOf(program, id, names, into)),
    ],
    needs: kind === 'package body' ? [idOf('package', database, name)] : [],
  }
}

function textOf(program: Program, id: string, names: NameMap, into: Gathered): Buffer {
  const { kind, database, name, create } = program
  const text = toText(create)
  const isRenamed = names.object(database, name)[1] !== name
  if (!('text' in text)) {
    if (isRenamed || kind === 'event') {
      into.findings.push({
        severity: kind === 'event' ? 'warns' : 'blocks',
        code: 'body-not-utf8',
        said: `${id} is written in ${program.charset}: it is carried byte for byte, under its own name and state only`,
      })
    }
    return create
  }
  const modes = modesOf(program.sqlMode)
  let { sql } = names.pairs(text.text, modes)
  if (isRenamed) {
    sql = renameProgram(sql, kind, quoteName(names.object(database, name)[1]), modes)
  }
  sql = mapBody(program, id, sql, { names, into, modes })
  return Buffer.from(kind === 'event' ? disable(sql) : sql)
}

type Mapping = { readonly names: NameMap; readonly into: Gathered; readonly modes: Modes }

function mapBody(program: Program, id: string, sql: string, mapping: Mapping): string {
  const { names, into, modes } = mapping
  const { database, table } = program
  const isMoved = table !== undefined && names.object(database, table)[1] !== table
  const own = isMoved ? renameTriggerTable(sql, names.quoted(database, table), modes) : sql
  const doubt = names.doubtful(own, database, modes)
  if (doubt.length > 0) {
    into.findings.push({
      severity: 'blocks',
      code: 'body-names',
      said: `${id} holds ${doubt.join(', ')}, which has another name on the target: whether it means that cannot be told; leave it out and make it by hand`,
    })
  }
  return own
}

/** Nothing may run by itself on a target that is being filled. */
function disable(sql: string): string {
  const masked = maskStrings(sql)
  const match = /(ON\s+COMPLETION\s+(?:NOT\s+)?PRESERVE\s+)(ENABLE|DISABLE ON \w+|DISABLE)\b/i.exec(
    masked,
  )
  if (!match) return sql
  const start = match.index + (match[1]?.length ?? 0)
  return `${sql.slice(0, start)}DISABLE${sql.slice(start + (match[2]?.length ?? 0))}`
}

function noteEvents(catalog: Catalog, into: Gathered): void {
  const events = catalog.programs.filter(({ kind }) => kind === 'event')
  if (events.length === 0) return
  const shown = events.map(({ database, name }) => idOf('event', database, name))
  into.findings.push({
    severity: 'notes',
    code: 'events-disabled',
    said: `made disabled, so that nothing runs on the target before the cut-over: ${shown.join(', ')}`,
  })
}
