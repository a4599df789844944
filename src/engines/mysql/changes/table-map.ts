import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'

/** Types of columns in the binary log. https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html */
export const columnType = {
  tiny: 1,
  short: 2,
  long: 3,
  float: 4,
  double: 5,
  null: 6,
  timestamp: 7,
  longlong: 8,
  int24: 9,
  date: 10,
  time: 11,
  datetime: 12,
  year: 13,
  newdate: 14,
  varchar: 15,
  bit: 16,
  timestamp2: 17,
  datetime2: 18,
  time2: 19,
  blobCompressed: 140,
  varcharCompressed: 141,
  vector: 242,
  json: 245,
  decimal: 246,
  enum: 247,
  set: 248,
  tinyBlob: 249,
  mediumBlob: 250,
  longBlob: 251,
  blob: 252,
  varString: 253,
  string: 254,
  geometry: 255,
} as const

/** What a table map says of a column. */
export type MappedColumn = {
  /** The type, that of ENUM and SET behind the cover of a string. */
  readonly code: number
  /** Longest size of a text in bytes, size of a length, precision and scale, digits of a second: as the type has it. */
  readonly modifier: number
  readonly nullable: boolean
  /** Undefined where the server does not say. */
  readonly unsigned: boolean | undefined
  /** Number of the collation of a text. */
  readonly collation: number | undefined
  readonly name: string | undefined
  /** Members of an ENUM or SET, in the column's own character set. */
  readonly members: readonly Buffer[] | undefined
}

/** The form of a table, written before the rows of each statement. */
export type TableMap = {
  readonly id: number
  readonly database: string
  readonly table: string
  readonly columns: readonly MappedColumn[]
  /** Indexes of the primary key's columns, where the server says. */
  readonly key: readonly number[] | undefined
}

/** More is no table. */
const columnsMax = 4096
/** Stands in for a table that was not written to. */
export const noTable = 0xffffff

const numeric: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 8, 9, 246])
const texts: ReadonlySet<number> = new Set([15, 140, 141, 249, 250, 251, 252, 253, 254])

export function readTableId(body: Buffer, size: number): number {
  if (body.length < size) throw new Fault('protocol', 'read row event: it has no table')
  return size === 4 ? body.readUInt32LE(0) : body.readUIntLE(0, 6)
}

/** Only the names: enough to know whether anybody wants its rows. */
export function decodeTableNames(
  body: Buffer,
  idSize: number,
): { readonly database: string; readonly table: string } {
  const reader = new Reader(body, 'table map', idSize + 2)
  const database = reader.text(reader.u8())
  reader.skip(1)
  return { database, table: reader.text(reader.u8()) }
}

/**
 * Reads a table map; `body` is without header and checksum.
 * https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html
 */
export function decodeTableMap(body: Buffer, idSize: number): TableMap {
  const reader = new Reader(body, 'table map')
  const id = readTableId(reader.view(idSize), idSize)
  reader.skip(2)
  const database = reader.text(reader.u8())
  reader.skip(1)
  const table = reader.text(reader.u8())
  reader.skip(1)
  const count = readPacked(reader)
  if (count > columnsMax) throw new Fault('protocol', `read table map: ${count} columns`)
  const types = reader.view(count)
  const meta = new Reader(reader.view(readPacked(reader)), 'metadata of a table map')
  const plain = [...types].map((type) => readModifier(type, meta))
  const nulls = reader.view((count + 7) >> 3)
  const more = readOptional(reader, plain)
  const columns = plain.map(({ code, modifier }, index) => ({
    code,
    modifier,
    nullable: (((nulls[index >> 3] ?? 0) >> (index & 7)) & 1) === 1,
    unsigned: more.unsigned?.[index],
    collation: more.collations.get(index),
    name: more.names?.[index],
    members: more.members.get(index),
  }))
  return { id, database, table, columns, key: more.key }
}

export function readPacked(reader: Reader): number {
  const first = reader.u8()
  if (first < 0xfb) return first
  if (first === 0xfc) return reader.u16le()
  if (first === 0xfd) return reader.u24le()
  if (first === 0xfe) {
    const value = reader.u64le()
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value)
  }
  throw new Fault('protocol', `read packed number: it begins with ${first}`)
}

type Plain = { readonly code: number; readonly modifier: number }

function readModifier(type: number, meta: Reader): Plain {
  switch (type) {
    case columnType.float:
    case columnType.double:
    case columnType.timestamp2:
    case columnType.datetime2:
    case columnType.time2:
    case columnType.blob:
    case columnType.tinyBlob:
    case columnType.mediumBlob:
    case columnType.longBlob:
    case columnType.blobCompressed:
    case columnType.geometry:
    case columnType.json:
    case columnType.vector:
      return { code: type, modifier: meta.u8() }
    case columnType.varchar:
    case columnType.varString:
    case columnType.varcharCompressed:
      return { code: type, modifier: meta.u16le() }
    case columnType.bit: {
      // Bits beyond whole bytes, then whole bytes.
      const bits = meta.u8()
      return { code: type, modifier: meta.u8() * 8 + bits }
    }
    case columnType.decimal:
      return { code: type, modifier: meta.u16be() }
    case columnType.enum:
    case columnType.set:
    case columnType.string:
      return readString(meta.u8(), meta.u8())
    default:
      if (fixedSize(type, 0) === undefined) {
        throw new Fault('unsupported', `read table map: column type ${type} is not known`)
      }
      return { code: type, modifier: 0 }
  }
}

/** The two high bits of a length above 255 stand inverted in the type. */
function readString(head: number, size: number): Plain {
  if (head === columnType.enum || head === columnType.set) return { code: head, modifier: size }
  const high = ((head & 0x30) ^ 0x30) << 4
  return { code: columnType.string, modifier: size | high }
}

/** Bytes of a value that is always of one size; undefined for others. */
export function fixedSize(code: number, modifier: number): number | undefined {
  switch (code) {
    case columnType.null:
      return 0
    case columnType.tiny:
    case columnType.year:
      return 1
    case columnType.short:
      return 2
    case columnType.int24:
    case columnType.date:
    case columnType.newdate:
    case columnType.time:
      return 3
    case columnType.long:
    case columnType.timestamp:
    case columnType.float:
      return 4
    case columnType.longlong:
    case columnType.datetime:
    case columnType.double:
      return 8
    case columnType.timestamp2:
      return 4 + ((modifier + 1) >> 1)
    case columnType.datetime2:
      return 5 + ((modifier + 1) >> 1)
    case columnType.time2:
      return 3 + ((modifier + 1) >> 1)
    case columnType.bit:
      return (modifier + 7) >> 3
    case columnType.decimal:
      return decimalSize(modifier >> 8, modifier & 255)
    case columnType.enum:
    case columnType.set:
      return modifier
    default:
      return undefined
  }
}

const digitBytes = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]

export function decimalSize(precision: number, scale: number): number {
  const whole = precision - scale
  const bytes = (digits: number) => Math.floor(digits / 9) * 4 + (digitBytes[digits % 9] ?? 0)
  return bytes(whole) + bytes(scale)
}

/** Bytes of the length before a value that is not of one size. */
export function lengthSize(code: number, modifier: number): number {
  if (code === columnType.varchar || code === columnType.varString || code === columnType.string) {
    return modifier > 255 ? 2 : 1
  }
  if (code === columnType.varcharCompressed) return modifier > 255 ? 2 : 1
  if (modifier >= 1 && modifier <= 4) return modifier
  throw new Fault('protocol', `read table map: lengths of ${modifier} bytes in type ${code}`)
}

type Optional = {
  unsigned?: boolean[]
  names?: string[]
  key?: number[]
  readonly collations: Map<number, number>
  readonly members: Map<number, Buffer[]>
}

/** Fields of a type, a length and a value each; those that are not known are passed over. */
function readOptional(reader: Reader, columns: readonly Plain[]): Optional {
  const into: Optional = { collations: new Map(), members: new Map() }
  const indexesOf = (accepts: (code: number) => boolean) =>
    columns.flatMap(({ code }, index) => (accepts(code) ? [index] : []))
  const textIndexes = indexesOf((code) => texts.has(code))
  const memberIndexes = indexesOf((code) => code === columnType.enum || code === columnType.set)
  while (reader.left > 0) {
    const field = reader.u8()
    const value = new Reader(reader.view(readPacked(reader)), 'metadata of a table map')
    if (field === 1) {
      into.unsigned = readBits(
        value,
        columns.length,
        indexesOf((code) => numeric.has(code)),
      )
    } else if (field === 2 || field === 10) {
      readDefaultCollation(value, field === 2 ? textIndexes : memberIndexes, into.collations)
    } else if (field === 3 || field === 11) {
      for (const index of field === 3 ? textIndexes : memberIndexes) {
        into.collations.set(index, readPacked(value))
      }
    } else if (field === 4) {
      into.names = columns.map(() => value.text(readPacked(value)))
    } else if (field === 5 || field === 6) {
      const code = field === 5 ? columnType.set : columnType.enum
      for (const index of indexesOf((one) => one === code)) {
        if (value.left > 0) into.members.set(index, readMembers(value))
      }
    } else if (field === 8 || field === 9) {
      into.key = []
      while (value.left > 0) {
        into.key.push(readPacked(value))
        if (field === 9) readPacked(value)
      }
    }
  }
  return into
}

/** A bit for each numeric column, the highest first. */
function readBits(reader: Reader, count: number, indexes: readonly number[]): boolean[] {
  const bits = reader.view((indexes.length + 7) >> 3)
  const unsigned = Array.from({ length: count }, () => false)
  for (const [at, index] of indexes.entries()) {
    unsigned[index] = (((bits[at >> 3] ?? 0) >> (7 - (at & 7))) & 1) === 1
  }
  return unsigned
}

/** The most common collation, then the columns that have another: by their index among their kind. */
function readDefaultCollation(
  reader: Reader,
  indexes: readonly number[],
  into: Map<number, number>,
): void {
  const common = readPacked(reader)
  for (const index of indexes) into.set(index, common)
  while (reader.left > 0) {
    const index = indexes[readPacked(reader)]
    const collation = readPacked(reader)
    if (index !== undefined) into.set(index, collation)
  }
}

function readMembers(reader: Reader): Buffer[] {
  const count = readPacked(reader)
  const members: Buffer[] = []
  for (let at = 0; at < count; at++) members.push(Buffer.from(reader.view(readPacked(reader))))
  return members
}
