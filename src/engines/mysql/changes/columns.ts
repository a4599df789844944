import { Fault } from '#base/faults'
import type { RelationColumn } from '#change/batch'
import { columnType, type MappedColumn, type TableMap } from './table-map.ts'

/** A column as the catalog has it. */
export type CatalogColumn = {
  readonly name: string
  /** In full: `bigint(20) unsigned`. */
  readonly type: string
  /** The bare word: `bigint`. */
  readonly word: string
  readonly charset: string | undefined
  /** Longest size of a text in bytes. */
  readonly octets: number | undefined
  /** Part of the primary key, or else of the first unique one without NULL. */
  readonly identifies: boolean
}

export type CollationCharsets = ReadonlyMap<number, string>

/** The columns of a table map that tells their names itself. */
export function columnsOfMap(
  map: TableMap,
  charsets: CollationCharsets,
  catalog: readonly CatalogColumn[] | undefined,
): RelationColumn[] {
  return map.columns.map((column, index) => {
    const name = column.name ?? ''
    const known = catalog?.find((one) => one.name === name)
    // The catalog has the type in more words, as long as it speaks of the same one.
    const same = known && difference(column, known) === undefined ? known : undefined
    const charset = charsetOf(column, charsets) ?? same?.charset
    return {
      name,
      type: same && !column.members ? same.type : typeOf(column, charset),
      code: column.code,
      modifier: column.modifier,
      charset,
      identifies: map.key ? map.key.includes(index) : (same?.identifies ?? false),
    }
  })
}

/** The columns of a table map by the catalog, which must not speak of another form of the table. */
export function columnsOfCatalog(
  map: TableMap,
  catalog: readonly CatalogColumn[],
  charsets: CollationCharsets,
): RelationColumn[] {
  const at = `${map.database}.${map.table}`
  if (catalog.length !== map.columns.length) {
    const said = `${map.columns.length} columns there, ${catalog.length} in the catalog`
    throw otherForm(at, said)
  }
  return map.columns.map((column, index) => {
    const known = catalog[index]
    const differs = known && difference(column, known)
    if (!known || differs !== undefined) throw otherForm(at, differs ?? '')
    return {
      name: known.name,
      type: known.type,
      code: column.code,
      modifier: column.modifier,
      charset: charsetOf(column, charsets) ?? known.charset,
      identifies: known.identifies,
    }
  })
}

export const metadataHint =
  'Let the log say the names: SET GLOBAL binlog_row_metadata = FULL; what was logged before needs a new copy.'

function otherForm(at: string, said: string): Fault {
  return new Fault(
    'source-changed',
    `read changes of ${at}: the log has another form of it (${said})`,
    { hint: metadataHint },
  )
}

function charsetOf(column: MappedColumn, charsets: CollationCharsets): string | undefined {
  return column.collation === undefined ? undefined : charsets.get(column.collation)
}

const codesOf: Readonly<Record<string, readonly number[]>> = {
  tinyint: [columnType.tiny],
  smallint: [columnType.short],
  mediumint: [columnType.int24],
  int: [columnType.long],
  bigint: [columnType.longlong],
  float: [columnType.float],
  double: [columnType.double],
  decimal: [columnType.decimal],
  bit: [columnType.bit],
  date: [columnType.date, columnType.newdate],
  time: [columnType.time2, columnType.time],
  datetime: [columnType.datetime2, columnType.datetime],
  timestamp: [columnType.timestamp2, columnType.timestamp],
  year: [columnType.year],
  char: [columnType.string],
  binary: [columnType.string],
  varchar: [columnType.varchar, columnType.varString, columnType.varcharCompressed],
  varbinary: [columnType.varchar, columnType.varString, columnType.varcharCompressed],
  enum: [columnType.enum],
  set: [columnType.set],
  json: [columnType.json],
  vector: [columnType.vector, columnType.varchar],
  uuid: [columnType.string],
  inet6: [columnType.string],
  inet4: [columnType.string],
}
const blobs: readonly number[] = [columnType.blob, columnType.blobCompressed]
const blobSizes: Readonly<Record<string, number>> = { tiny: 1, '': 2, medium: 3, long: 4 }
const shapes = new Set([
  'geometry',
  'point',
  'linestring',
  'polygon',
  'multipoint',
  'multilinestring',
  'multipolygon',
  'geometrycollection',
  'geomcollection',
])

/** What the log and the catalog say differently of a column; undefined when they agree. */
function difference(column: MappedColumn, known: CatalogColumn): string | undefined {
  const { code, modifier } = column
  const differs = `column ${known.name} is ${known.type} in the catalog`
  const blob = /^(tiny|medium|long|)(?:blob|text)$/.exec(known.word)
  if (blob) {
    const size = blobSizes[blob[1] ?? '']
    return blobs.includes(code) && (modifier === size || code !== columnType.blob)
      ? undefined
      : differs
  }
  if (shapes.has(known.word)) return code === columnType.geometry ? undefined : differs
  const codes = codesOf[known.word]
  // A type that we do not know may be written in any way.
  if (!codes) return undefined
  if (!codes.includes(code)) return differs
  if (column.unsigned !== undefined && column.unsigned !== isUnsigned(known.type)) return differs
  if (code === columnType.varchar && known.octets !== undefined && known.octets !== modifier) {
    return differs
  }
  const [first, second] = numbersOf(known.type)
  if (code === columnType.decimal && modifier !== (first ?? 10) * 256 + (second ?? 0)) {
    return differs
  }
  const timed = [columnType.time2, columnType.datetime2, columnType.timestamp2] as readonly number[]
  if (timed.includes(code) && modifier !== (first ?? 0)) return differs
  if (code === columnType.bit && modifier !== (first ?? 1)) return differs
  if (code === columnType.string && known.octets !== undefined && known.octets !== modifier) {
    return known.word === 'char' || known.word === 'binary' ? differs : undefined
  }
  return undefined
}

export function isUnsigned(type: string): boolean {
  return /\b(?:unsigned|zerofill)\b/i.test(type)
}

/** What stands in the brackets of a type. */
export function numbersOf(type: string): number[] {
  return (/^\w+\((\d+)(?:,(\d+))?\)/.exec(type) ?? [])
    .slice(1)
    .filter((digits) => digits !== undefined)
    .map(Number)
}

const words = new Map<number, string>(
  Object.entries({
    tinyint: columnType.tiny,
    smallint: columnType.short,
    mediumint: columnType.int24,
    int: columnType.long,
    bigint: columnType.longlong,
    float: columnType.float,
    double: columnType.double,
    date: columnType.date,
    year: columnType.year,
    json: columnType.json,
    geometry: columnType.geometry,
    vector: columnType.vector,
  }).map(([word, code]) => [code, word]),
)

/** A type in words, as near as the log can tell it. */
function typeOf(column: MappedColumn, charset: string | undefined): string {
  const { code, modifier } = column
  const binary = charset === 'binary'
  const sized = (word: string, size: number) => (size === 0 ? word : `${word}(${size})`)
  const word = words.get(code)
  if (word !== undefined) return column.unsigned ? `${word} unsigned` : word
  switch (code) {
    case columnType.decimal:
      return `decimal(${modifier >> 8},${modifier & 255})${column.unsigned ? ' unsigned' : ''}`
    case columnType.bit:
      return `bit(${modifier})`
    case columnType.time2:
    case columnType.time:
      return sized('time', modifier)
    case columnType.datetime2:
    case columnType.datetime:
      return sized('datetime', modifier)
    case columnType.timestamp2:
    case columnType.timestamp:
      return sized('timestamp', modifier)
    case columnType.varchar:
    case columnType.varString:
    case columnType.varcharCompressed:
      return `${binary ? 'varbinary' : 'varchar'}(${modifier})`
    case columnType.string:
      return `${binary ? 'binary' : 'char'}(${modifier})`
    case columnType.enum:
    case columnType.set: {
      const decoder = textDecoder(charset ?? 'utf8mb4')
      const members = (column.members ?? []).map(
        (member) => `'${decoder(member, 0, member.length).replaceAll("'", "''")}'`,
      )
      return `${code === columnType.enum ? 'enum' : 'set'}(${members.join(',')})`
    }
    default: {
      const size = Object.keys(blobSizes)[modifier - 1] ?? ''
      return `${size}${binary ? 'blob' : 'text'}`
    }
  }
}

type DecodeText = (bytes: Buffer, start: number, end: number) => string

const labels: Readonly<Record<string, string>> = {
  cp1250: 'windows-1250',
  cp1251: 'windows-1251',
  cp1256: 'windows-1256',
  cp1257: 'windows-1257',
  cp866: 'ibm866',
  koi8r: 'koi8-r',
  koi8u: 'koi8-u',
  latin2: 'iso-8859-2',
  latin5: 'windows-1254',
  latin7: 'iso-8859-13',
  greek: 'iso-8859-7',
  hebrew: 'iso-8859-8',
  macroman: 'macintosh',
  tis620: 'windows-874',
  gbk: 'gbk',
  gb2312: 'gbk',
  gb18030: 'gb18030',
  big5: 'big5',
  sjis: 'shift_jis',
  cp932: 'shift_jis',
  ujis: 'euc-jp',
  eucjpms: 'euc-jp',
  euckr: 'euc-kr',
  utf16le: 'utf-16le',
  utf16: 'utf-16be',
  ucs2: 'utf-16be',
}

/** Reads the bytes of a character set of the server. */
export function textDecoder(charset: string): DecodeText {
  const name = charset.toLowerCase()
  if (/^utf8|^ascii$/.test(name)) return (bytes, start, end) => bytes.toString('utf8', start, end)
  // The server's latin1 is that of Windows, with the five codes that it leaves open kept as they are.
  const label = name === 'latin1' ? 'windows-1252' : labels[name]
  if (label !== undefined) {
    const decoder = new TextDecoder(label, { ignoreBOM: true })
    return (bytes, start, end) => decoder.decode(bytes.subarray(start, end))
  }
  if (name === 'utf32') return decodeUtf32
  return () => {
    throw new Fault('unsupported', `read text: the character set ${charset} is not known`)
  }
}

function decodeUtf32(bytes: Buffer, start: number, end: number): string {
  let text = ''
  for (let at = start; at + 4 <= end; at += 4) text += String.fromCodePoint(bytes.readUInt32BE(at))
  return text
}
