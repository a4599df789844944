import type { SchemaObject } from '#change/schema'
import { splitTop } from './ddl.ts'
import type { Session } from './protocol/session.ts'
import { readWords } from './sql-words.ts'
import { quoteText } from './sql.ts'

/** How an object stands on a target: as it is wanted, a part of it, or one of that name which is to be looked at. */
export type There = 'same' | 'part' | 'some' | undefined

/** Looks for an object by its name on the target. */
export async function findObject(
  session: Session,
  object: SchemaObject,
  signal: AbortSignal,
): Promise<There> {
  const [database = '', name = ''] = object.target ?? object.name
  switch (object.kind) {
    case 'table':
      return (await isThere(session, 'TABLES', 'TABLE', database, name, signal))
        ? 'some'
        : undefined
    case 'view':
      return (await isThere(session, 'VIEWS', 'TABLE', database, name, signal)) ? 'some' : undefined
    case 'trigger':
      return (await isThere(session, 'TRIGGERS', 'TRIGGER', database, name, signal))
        ? 'some'
        : undefined
    case 'event':
      return (await isThere(session, 'EVENTS', 'EVENT', database, name, signal))
        ? 'some'
        : undefined
    case 'procedure':
    case 'function':
      return findRoutine(session, object, signal)
    case 'index':
    case 'foreign-key':
      return findKeys(session, object, signal)
    case 'sequence':
      if (object.stage === 'end') return undefined
      return (await isThere(session, 'TABLES', 'TABLE', database, name, signal))
        ? 'some'
        : undefined
    case 'other':
      return object.id.startsWith('package') ? findRoutine(session, object, signal) : undefined
    default:
      // Made again without harm: databases and accounts say IF NOT EXISTS, a grant that is there stays.
      return undefined
  }
}

async function isThere(
  session: Session,
  view: string,
  what: string,
  database: string,
  name: string,
  signal: AbortSignal,
): Promise<boolean> {
  const column = view === 'VIEWS' ? 'TABLE' : what
  const row = await session.one(
    `SELECT 1 FROM information_schema.${view} WHERE ${column}_SCHEMA = ${quoteText(database)} AND ${column}_NAME = ${quoteText(name)}`,
    { signal },
  )
  return row !== undefined
}

async function findRoutine(
  session: Session,
  object: SchemaObject,
  signal: AbortSignal,
): Promise<There> {
  const [database = '', name = ''] = object.target ?? object.name
  const kind = object.id.startsWith('package body') ? 'package body' : object.id.split(' ')[0]
  const row = await session.one(
    `SELECT 1 FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ${quoteText(database)} AND ROUTINE_NAME = ${quoteText(name)}
     AND LOWER(ROUTINE_TYPE) = '${kind}'`,
    { signal },
  )
  return row ? 'some' : undefined
}

/** Names of the keys and constraints that `ALTER TABLE ... ADD ..., ADD ...` makes. */
export function addedNames(statement: string): string[] {
  return splitTop(statement).flatMap((clause) => {
    const add = / ADD (?:CONSTRAINT |(?:UNIQUE |FULLTEXT |SPATIAL |VECTOR )?(?:KEY|INDEX) )/.exec(
      ` ${clause}`,
    )
    if (!add) return []
    const rest = ` ${clause}`.slice(add.index + add[0].length)
    const name = readWords(rest).next().value
    return name ? [name.text] : []
  })
}

async function findKeys(
  session: Session,
  object: SchemaObject,
  signal: AbortSignal,
): Promise<There> {
  const [database = '', name = ''] = object.target ?? object.name
  const where = `TABLE_SCHEMA = ${quoteText(database)} AND TABLE_NAME = ${quoteText(name)}`
  const from =
    object.kind === 'index'
      ? `DISTINCT INDEX_NAME FROM information_schema.STATISTICS WHERE ${where}`
      : `CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS WHERE ${where} AND CONSTRAINT_TYPE = 'FOREIGN KEY'`
  const rows = await session.texts(`SELECT ${from}`, { signal })
  const there = new Set(rows.map(([key]) => key?.toLowerCase()))
  const wanted = object.statements.flatMap(addedNames)
  const have = wanted.filter((key) => there.has(key.toLowerCase())).length
  if (have === 0) return undefined
  if (have < wanted.length) return 'part'
  return 'some'
}
