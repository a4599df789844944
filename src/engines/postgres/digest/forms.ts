import type { Cell, ColumnForms, DigestColumn } from '#change/digest'
import type { ColumnShape } from '#change/schema'
import { quoteName, quoteText } from '../rows-sql.ts'

/** A value of more bytes is in the digest of its row by a digest of its own. */
const inlineMaxBytes = 4096

const integers = new Set(['smallint', 'integer', 'bigint', 'oid'])
const floats = new Set(['real', 'double precision'])
/** Types whose text is short, whatever the value. */
const short =
  /^(?:interval|time |time\(|inet|cidr|macaddr|money|"char"|name|pg_lsn|bit\(\d{1,3}\)|character(?: varying)?\(\d{1,3}\))/

/** The canonical forms that a column can be read in, and the order of its values. */
export function columnForms(column: ColumnShape): ColumnForms {
  const { type } = column
  if (integers.has(type)) return { forms: ['integer'], order: 'integer' }
  if (type.startsWith('numeric')) return { forms: ['decimal'], order: 'decimal' }
  if (floats.has(type)) return { forms: ['float/pg'], order: undefined }
  if (type === 'boolean') return { forms: ['boolean'], order: undefined }
  if (/^(?:text|character)/.test(type) && !type.endsWith('[]')) {
    return { forms: ['text/utf8'], order: `text/${column.collation ?? ''}` }
  }
  if (type === 'bytea') return { forms: ['bytes/hex'], order: 'bytes' }
  if (type === 'date') return { forms: ['date/pg'], order: 'date/pg' }
  if (type === 'uuid') return { forms: ['uuid'], order: 'uuid' }
  const stamp = /^timestamp(?:\(\d\))? (with|without) time zone$/.exec(type)
  if (stamp) {
    const form = stamp[1] === 'with' ? 'timestamp/pg-utc' : 'datetime/pg'
    return { forms: [form], order: form }
  }
  if (type === 'json' || type === 'jsonb') {
    return { forms: [`${type}/pg`, 'json/text'], order: undefined }
  }
  return { forms: [`pg/${type}`], order: undefined }
}

/** Forms whose text is never empty and holds no comma. */
const bare = new Set([
  'integer',
  'decimal',
  'float/pg',
  'boolean',
  'date/pg',
  'datetime/pg',
  'timestamp/pg-utc',
  'uuid',
])

/** The canonical form of a column, as an expression of type text. */
export function cellSql(column: DigestColumn): string {
  const name = quoteName(column.name)
  return column.form === 'bytes/hex' ? `pg_catalog.encode(${name}, 'hex')` : `${name}::text`
}

/** What a column adds to the text that is digested: see docs/formats/row-digest.md. A missing part is empty. */
function fieldSql(column: DigestColumn, encoding: Encoding): string {
  const name = quoteName(column.name)
  if (bare.has(column.form)) return name
  const cell = cellSql(column)
  const isBytes = column.form === 'bytes/hex'
  const isText = column.form === 'text/utf8' && !column.type.startsWith('character(')
  const value = isText ? name : cell
  const raw = isBytes ? name : toBytes(value, encoding)
  const counted = isBytes || encoding === 'server' ? (isBytes ? name : value) : raw
  const length = `pg_catalog.octet_length(${counted})`
  if (short.test(column.type)) return `${length}, ':', ${value}`
  return `${length}, case when ${length} > ${inlineMaxBytes} then '#' || ${hashSql(raw)} else ':' || ${value} end`
}

/** A call takes a hundred arguments, a field has four and a comma. */
const fieldsOfCall = 15

/**
 * Of the text that is digested: the server's own when that is UTF-8, where texts need no conversion for their length; whatever
 * bytes there are; or one that is converted.
 */
export type Encoding = 'server' | 'bytes' | 'converted'

function toBytes(text: string, encoding: Encoding): string {
  return `pg_catalog.convert_to(${text}, '${encoding === 'bytes' ? 'SQL_ASCII' : 'UTF8'}')`
}

/** The first half of a SHA-256, in hex. MD5 is gone from MySQL 9.6 on, and from PostgreSQL where FIPS holds. */
function hashSql(bytes: string): string {
  return `pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(${bytes}), 'hex'), 32)`
}

/** The digest of some columns of a row. */
export function digestSql(columns: readonly DigestColumn[], encoding: Encoding): string {
  const fields = columns.map((column) => fieldSql(column, encoding))
  const calls: string[] = []
  for (let at = 0; at < fields.length; at += fieldsOfCall) {
    const some = fields.slice(at, at + fieldsOfCall)
    calls.push(`pg_catalog.concat(${some.join(", ',', ")})`)
  }
  return hashSql(toBytes(calls.length === 0 ? "''" : calls.join(" || ',' || "), encoding))
}

/** How many bytes the long values of a row have. */
export function sizeSql(columns: readonly DigestColumn[]): string {
  const long = columns.filter(({ type, form }) => !bare.has(form) && !short.test(type))
  const sizes = long.map(({ name }) => `coalesce(pg_catalog.pg_column_size(${quoteName(name)}), 0)`)
  return ['0', ...sizes].join(' + ')
}

/** A seeded digest of a digest. */
export function seededSql(seed: string, digest: string): string {
  return hashSql(toBytes(`${quoteText(seed)} || ${digest}`, 'server'))
}

/** A cell as a literal that its column takes. */
export function literalSql(column: DigestColumn, cell: Cell): string {
  if (cell === null) return 'NULL'
  const text = cell.toString()
  return column.form === 'bytes/hex' ? quoteText(`\\x${text}`) : quoteText(text)
}
