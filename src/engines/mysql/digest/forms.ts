import type { Cell, ColumnForms, DigestColumn } from '#change/digest'
import type { ColumnShape } from '#change/schema'
import { quoteName } from '../sql.ts'

/** A value of more bytes is in the digest of its row by a digest of its own: a statement's result would else be too large. */
const inlineMaxBytes = 4096

const integers = /^(?:tinyint|smallint|mediumint|int|bigint|year|bool)/
const floats = /^(?:float|double|real)/
const texts = /^(?:char|varchar|tinytext|text|mediumtext|longtext)/
const bytes = /^(?:binary|varbinary|tinyblob|blob|mediumblob|longblob)/
const spatial =
  /^(?:geometry|point|linestring|polygon|multipoint|multilinestring|multipolygon|geom)/
/** Character sets whose bytes are UTF-8. */
const utf8 = new Set(['utf8mb4', 'utf8mb3', 'utf8', 'ascii'])
/** Addresses and the like: short, and read as text. */
const worded = /^(?:uuid|inet4|inet6|xmltype)/

/** The canonical forms that a column can be read in, and the order of its values. */
export function columnForms(column: ColumnShape, flavor: 'mysql' | 'mariadb'): ColumnForms {
  const { type } = column
  const collation = column.collation ?? ''
  if (integers.test(type)) return { forms: ['integer'], order: 'integer' }
  if (type.startsWith('bit')) return { forms: ['integer'], order: undefined }
  if (/^(?:decimal|numeric)/.test(type)) return { forms: ['decimal'], order: 'decimal' }
  if (floats.test(type)) return { forms: ['float/mysql'], order: undefined }
  if (texts.test(type)) {
    const order = /^(?:char|varchar)/.test(type) ? `text/${collation}` : undefined
    const charset = column.charset ?? ''
    if (!utf8.has(charset)) return { forms: [`text/${charset}`, 'text/utf8'], order }
    // What is JSON on MySQL is a text on MariaDB, which keeps it as it was written.
    const isJson = flavor === 'mariadb' && type === 'longtext'
    return { forms: isJson ? ['text/utf8', 'json/text'] : ['text/utf8'], order }
  }
  if (/^(?:enum|set)/.test(type)) return { forms: ['text/utf8'], order: undefined }
  if (bytes.test(type)) {
    return { forms: ['bytes'], order: /^(?:var)?binary/.test(type) ? 'bytes' : undefined }
  }
  if (type === 'json') return { forms: ['json/mysql', 'json/text'], order: undefined }
  if (spatial.test(type)) return { forms: ['geometry/mysql'], order: undefined }
  if (type.startsWith('vector')) return { forms: ['vector'], order: undefined }
  if (worded.test(type)) {
    return { forms: ['text/utf8'], order: type === 'uuid' ? 'uuid/mariadb' : undefined }
  }
  const temporal = /^(date|datetime|timestamp|time)(?:\(\d\))?$/.exec(type)?.[1]
  if (temporal) {
    const form = temporal === 'timestamp' ? 'timestamp/utc' : `${temporal}/mysql`
    // Hours of one, two or three digits, and below 0: as texts they have another order.
    return { forms: [form], order: temporal === 'time' ? undefined : form }
  }
  return { forms: [`mysql/${type}`], order: undefined }
}

/** Forms whose text is never empty and holds no comma. */
const bare = new Set([
  'integer',
  'decimal',
  'float/mysql',
  'date/mysql',
  'datetime/mysql',
  'time/mysql',
  'timestamp/utc',
])

/** The canonical form of a column, as an expression. */
export function cellSql(column: DigestColumn): string {
  const name = quoteName(column.name)
  const { type, form } = column
  if (form === 'integer') {
    return /zerofill|^bit|^year/.test(type) ? `CAST(${name} AS UNSIGNED)` : name
  }
  if (form === 'decimal') return type.includes('zerofill') ? `(${name} + 0)` : name
  // A FLOAT's own text has six digits; as a DOUBLE it has all that tell it from its neighbours. -0 plus 0 would be 0.
  if (form === 'float/mysql') return `(${name} * 1e0)`
  if (form === 'text/utf8' || form === 'json/text' || form === 'json/mysql') {
    if (type === 'json') return `CAST(${name} AS CHAR CHARACTER SET utf8mb4)`
    const isPlain = texts.test(type) && utf8.has(column.charset ?? '')
    if (isPlain) return name
    if (worded.test(type)) return `CAST(${name} AS CHAR)`
    return `CONVERT(${name} USING utf8mb4)`
  }
  if (form === 'vector') return `HEX(${name})`
  return name
}

/** Whether values can be longer than what goes into a row's digest as it is. */
function mayBeLong({ type, form }: DigestColumn): boolean {
  if (/^(?:enum|set)/.test(type) || worded.test(type)) return false
  const declared = Number(/^(?:var)?(?:char|binary)\((\d+)\)/.exec(type)?.[1] ?? Number.NaN)
  const width = form.startsWith('text/') ? 4 : 1
  return !(declared * width <= inlineMaxBytes || type.startsWith('tiny'))
}

/** What a column adds to the text that is digested: see docs/formats/row-digest.md. */
function fieldSql(column: DigestColumn): string {
  const cell = cellSql(column)
  if (bare.has(column.form)) return column.nullable ? `IFNULL(${cell}, '')` : cell
  // Bytes have no character set to disagree about with those of their neighbours.
  const inline = `CONCAT(LENGTH(${cell}), ':', CAST(${cell} AS BINARY))`
  const field = mayBeLong(column)
    ? `IF(LENGTH(${cell}) > ${inlineMaxBytes}, CONCAT(LENGTH(${cell}), '#', ${hashSql(cell)}), ${inline})`
    : inline
  return column.nullable ? `IFNULL(${field}, '')` : field
}

/** The first half of a SHA-256, in hex. MD5 is gone from MySQL 9.6 on, and from PostgreSQL where FIPS holds. */
function hashSql(value: string): string {
  return `LEFT(SHA2(${value}, 256), 32)`
}

/** The digest of some columns of a row. */
export function digestSql(columns: readonly DigestColumn[]): string {
  return hashSql(columns.length === 0 ? "''" : `CONCAT(${columns.map(fieldSql).join(", ',', ")})`)
}

/** What a digest adds to the sum of its rows: its first 64 bits. */
export function summandSql(columns: readonly DigestColumn[]): string {
  return `CAST(CONV(LEFT(${digestSql(columns)}, 16), 16, 10) AS UNSIGNED)`
}

/** How many bytes the long values of a row have. */
export function sizeSql(columns: readonly DigestColumn[]): string {
  const long = columns.filter((column) => !bare.has(column.form) && mayBeLong(column))
  return ['0', ...long.map(({ name }) => `IFNULL(LENGTH(${quoteName(name)}), 0)`)].join(' + ')
}

/** What a cell is selected as, so that its bytes come undisturbed. */
export function selectSql(column: DigestColumn): string {
  return cellSql(column)
}

const numbers = new Set(['integer', 'decimal'])

/** A cell as a literal of its column's type, under any `sql_mode`. */
export function literalSql(column: DigestColumn, cell: Cell): string {
  if (cell === null) return 'NULL'
  const { form } = column
  const text = () => cell.toString('latin1')
  const hex = cell.length === 0 ? "''" : `0x${cell.toString('hex')}`
  if (numbers.has(form)) return text()
  if (form === 'float/mysql') return text().includes('e') ? text() : `${text()}e0`
  if (form === 'vector') return cell.length === 0 ? "''" : `0x${text()}`
  if (form === 'text/utf8' || form.startsWith('json/')) {
    return cell.length === 0 ? "''" : `_utf8mb4 ${hex}`
  }
  const charset = /^text\/(\w+)$/.exec(form)?.[1]
  if (charset) return cell.length === 0 ? "''" : `_${charset} ${hex}`
  if (bare.has(form)) return `'${text()}'`
  return hex
}

/** A cell of a key as a literal that compares as the column does. */
export function keyLiteralSql(column: DigestColumn, cell: Buffer): string {
  const literal = literalSql(column, cell)
  // Its order is not that of its text.
  if (column.type === 'uuid') return `CAST(${literal} AS UUID)`
  if (!texts.test(column.type) || !column.collation || !column.charset) return literal
  const same = column.form === `text/${column.charset}` || column.charset === 'utf8mb4'
  const own = same ? literal : `CONVERT(${literal} USING ${column.charset})`
  return `(${own} COLLATE ${column.collation})`
}
