import { Fault } from '#base/faults'
import type { ObjectName } from '#change/schema'
import { isTransactional } from '../catalog.ts'
import type { Session } from '../protocol/session.ts'
import { quoteNames, quoteText } from '../sql.ts'

type Options = { readonly signal: AbortSignal }

export type TargetColumn = {
  readonly name: string
  /** In full: `bigint(20) unsigned`. */
  readonly type: string
  /** The bare word: `bigint`. */
  readonly word: string
  readonly charset: string | undefined
  readonly collation: string | undefined
  readonly nullable: boolean
  /** Takes a value of its own where none is given. */
  readonly fills: boolean
  /** Computed: takes no value. */
  readonly generated: boolean
  /** Becomes the present time in every update that does not say otherwise. */
  readonly follows: boolean
}

export type TargetKey = {
  readonly name: string
  readonly parts: readonly {
    /** Undefined for an expression. */
    readonly column: string | undefined
    /** Only the start of the value. */
    readonly prefix: boolean
    readonly nullable: boolean
  }[]
}

/** A table of the target as its catalog has it. */
export type TargetTable = {
  readonly database: string
  readonly name: string
  /** A sequence of MariaDB: one row that each insert replaces. */
  readonly isSequence: boolean
  readonly columns: readonly TargetColumn[]
  /** Unique ones; the primary one first. */
  readonly keys: readonly TargetKey[]
}

/** Reads a table that rows can be written to; anything else is `different` or `refused`. */
export async function readTargetTable(
  session: Session,
  [database = '', name = '']: ObjectName,
  options: Options,
): Promise<TargetTable> {
  const at = quoteNames(database, name)
  const where = `${is('TABLE_SCHEMA', database)} AND ${is('TABLE_NAME', name)}`
  const facts = await session.one(
    `SELECT COALESCE(ENGINE, ''), TABLE_TYPE FROM information_schema.TABLES WHERE ${where}`,
    options,
  )
  if (!facts) {
    throw new Fault('different', `apply to ${at}: the target has no such table`, {
      hint: 'Copy it first, or leave it out.',
    })
  }
  checkKind(at, facts[0] ?? '', facts[1] ?? '')
  await checkTriggers(session, database, name, options)
  const columns = await session.texts(
    `SELECT COLUMN_NAME, COLUMN_TYPE, LOWER(DATA_TYPE), CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE,
     COLUMN_DEFAULT IS NOT NULL, LOWER(EXTRA) FROM information_schema.COLUMNS WHERE ${where} ORDER BY ORDINAL_POSITION`,
    options,
  )
  const keys = await session.texts(
    `SELECT INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE FROM information_schema.STATISTICS
     WHERE ${where} AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`,
    options,
  )
  const isSequence = facts[1] === 'SEQUENCE'
  return { database, name, isSequence, columns: columns.map(columnOf), keys: keysOf(keys) }
}

function checkKind(at: string, engine: string, type: string): void {
  if (type === 'SYSTEM VERSIONED') {
    throw new Fault('unsupported', `apply to ${at}: it keeps its own history of rows`, {
      hint: 'Leave it out, and copy it once nobody writes to it any more.',
    })
  }
  if (type !== 'BASE TABLE' && type !== 'SEQUENCE')
    throw new Fault('different', `apply to ${at}: it is a ${type}`)
  if (!isTransactional(engine)) {
    throw new Fault('refused', `apply to ${at}: its engine ${engine} keeps no transactions`, {
      hint: `Run on the target: ALTER TABLE ${at} ENGINE = InnoDB`,
    })
  }
}

async function checkTriggers(
  session: Session,
  database: string,
  name: string,
  options: Options,
): Promise<void> {
  const where = `${is('EVENT_OBJECT_SCHEMA', database)} AND ${is('EVENT_OBJECT_TABLE', name)}`
  const triggers = await session.texts(
    `SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE ${where}`,
    options,
  )
  if (triggers.length === 0) return
  const at = quoteNames(database, name)
  const names = triggers.map(([trigger]) => trigger).join(', ')
  throw new Fault('refused', `apply to ${at}: its triggers would fire again: ${names}`, {
    hint: 'Drop them on the target until the link has ended.',
  })
}

function columnOf(row: readonly (string | null)[]): TargetColumn {
  const [name, type, word, charset, collation, nullable, hasDefault, extra] = row
  const words = extra ?? ''
  return {
    name: name ?? '',
    type: type ?? '',
    word: word ?? '',
    charset: charset ?? undefined,
    collation: collation ?? undefined,
    nullable: nullable === 'YES',
    fills: hasDefault === '1' || /auto_increment|default_generated/.test(words),
    generated: /(?<!default_)\bgenerated\b|persistent/.test(words),
    follows: words.includes('on update'),
  }
}

function keysOf(rows: readonly (readonly (string | null)[])[]): TargetKey[] {
  return [...Map.groupBy(rows, (row) => row[0] ?? '')].map(([name, parts]) => ({
    name,
    parts: parts.map(([, column, prefix, nullable]) => ({
      column: column ?? undefined,
      prefix: prefix !== null,
      nullable: nullable?.toUpperCase() === 'YES',
    })),
  }))
}

/** The catalog's own comparison ignores case, names may differ in nothing else. */
export function is(column: string, name: string): string {
  const text = quoteText(name)
  return `${column} = ${text} AND CAST(${column} AS BINARY) = CAST(${text} AS BINARY)`
}
