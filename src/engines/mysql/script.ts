import { loadRows, type Program } from './catalog.ts'
import { fromText, type StoredObject } from './layout.ts'
import { quoteName, quoteNames, quotePlain } from './sql.ts'

/** Session settings under which a base is loaded: what the source holds goes in as it is. */
export const loadSettings = [
  'SET NAMES utf8mb4',
  `SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+00:00'`,
  // Unique checks stay as they are: without them MariaDB (10.7 on) sorts rows that are sorted, at twice the cost.
  'SET SESSION foreign_key_checks = 0',
]

/** A database's own statement, harmless where the database is there already. */
export function createDatabase(create: string): string {
  return create.replace(
    /^CREATE DATABASE (?:\/\*!\d+ IF NOT EXISTS\*\/ )?/i,
    'CREATE DATABASE IF NOT EXISTS ',
  )
}

/** A stand-in with the view's columns, so that views may be made in any order. */
export function standIn(view: Extract<StoredObject, { kind: 'view' }>): string {
  const columns = view.columns.map((name) => `1 AS ${quoteName(name)}`).join(', ')
  return `CREATE OR REPLACE VIEW ${quoteNames(view.database, view.name)} AS SELECT ${columns || '1'}`
}

export function createView(view: Extract<StoredObject, { kind: 'view' }>): Buffer {
  // The statement is CREATE ALGORITHM=... VIEW ...: latin1 keeps every byte.
  const text = fromText(view.create)
    .toString('latin1')
    .replace(/^CREATE /i, 'CREATE OR REPLACE ')
  return Buffer.from(text, 'latin1')
}

/** The settings of which a program keeps a copy for its whole life. */
export function programSettings(
  object: Pick<Program, 'charset' | 'collation' | 'sqlMode' | 'timeZone'>,
): string[] {
  const { charset, collation, sqlMode, timeZone } = object
  return [
    `SET SESSION character_set_client = ${charset}, collation_connection = ${collation}`,
    `SET SESSION sql_mode = ${quotePlain(sqlMode)}`,
    ...(timeZone === undefined ? [] : [`SET SESSION time_zone = ${quotePlain(timeZone)}`]),
  ]
}

export function setSequence(sequence: Extract<StoredObject, { kind: 'sequence' }>): string {
  const at = quoteNames(sequence.database, sequence.name)
  return `SELECT SETVAL(${at}, ${sequence.next}, 0, ${sequence.cycles})`
}

/** Lets rows of a system-versioned table come with the times for which they held (MariaDB 10.11 and later). */
export const keepHistory = 'SET SESSION system_versioning_insert_history = 1'

const delimiter = '//redoubt//'

/** The whole base as one script for the stock client, run in the base's own folder. */
export function* writeScript(objects: readonly StoredObject[]): Generator<Buffer, void, void> {
  yield Buffer.from(
    `-- Loads this base with the stock client, from within its folder:\n` +
      `--   mysql --local-infile=1 --default-character-set=utf8mb4 <load.sql\n` +
      `${[...loadSettings, ''].join(';\n')}`,
  )
  for (const object of objects) if (object.kind !== 'program') yield* writeObject(object)
  for (const object of objects) {
    if (object.kind === 'view') yield* inCharset(object, createView(object))
  }
  for (const object of objects) if (object.kind === 'program') yield* writeProgram(object)
}

function* writeObject(object: StoredObject): Generator<Buffer, void, void> {
  const lines: string[] = []
  if (object.kind === 'database') lines.push(createDatabase(object.create))
  else if ('database' in object) lines.push(`USE ${quoteName(object.database)}`)
  if (object.kind === 'view') lines.push(standIn(object))
  if (object.kind === 'sequence') lines.push(object.create, setSequence(object))
  if (object.kind === 'table') {
    lines.push(object.create)
    if (object.versioned) lines.push(keepHistory)
    for (const file of object.files) lines.push(loadRows(object, object.columns, file.path))
    if (object.versioned) lines.push('SET SESSION system_versioning_insert_history = 0')
  }
  yield Buffer.from(`${lines.join(';\n')};\n`)
}

function* inCharset(
  object: Extract<StoredObject, { kind: 'view' }>,
  statement: Buffer,
): Generator<Buffer, void, void> {
  const { charset, collation, database } = object
  yield Buffer.from(
    `USE ${quoteName(database)};\nSET SESSION character_set_client = ${charset}, collation_connection = ${collation};\n`,
  )
  yield Buffer.concat([statement, Buffer.from(';\nSET NAMES utf8mb4;\n')])
}

function* writeProgram(
  object: Extract<StoredObject, { kind: 'program' }>,
): Generator<Buffer, void, void> {
  const before = [`USE ${quoteName(object.database)}`, ...programSettings(object)]
  yield Buffer.from(`${before.join(';\n')};\nDELIMITER ${delimiter}\n`)
  yield fromText(object.create)
  yield Buffer.from(`\n${delimiter}\nDELIMITER ;\n${loadSettings.join(';\n')};\n`)
}
