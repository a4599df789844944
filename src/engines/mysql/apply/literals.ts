import { Fault } from '#base/faults'
import type { RelationColumn } from '#change/batch'
import { isUnsigned } from '../changes/columns.ts'
import { decodeJsonPatch } from '../changes/json.ts'
import { columnType } from '../changes/table-map.ts'
import { createCellReader, type ReadCell } from '../values.ts'
import type { SqlBuffer } from './sql-buffer.ts'
import type { TargetColumn } from './target-table.ts'

/** Writes a cell as a literal that means the same value to the server. */
export type WriteCell = (out: SqlBuffer, bytes: Buffer, start: number, end: number) => void

/** How the cells of a column are written into statements. */
export type ColumnLiterals = {
  readonly value: WriteCell
  /** A condition that only rows with exactly this value meet. */
  readonly matches: WriteCell
  /** A new value by the steps of a patch to the old one. */
  readonly patch: WriteCell
  /** A cell whose value was none of an ENUM's members, which strict sessions refuse. */
  readonly isLoose: (bytes: Buffer, start: number, end: number) => boolean
}

/** Compared once more byte by byte up to here, so that an index is still of use; longer ones only so. */
const shortBytes = 1024
const wide = new Set(['ucs2', 'utf16', 'utf16le', 'utf32'])
const never = () => false

/** `charsets` are those that the target knows; `name` is the target's column, quoted. */
export function createLiterals(
  column: RelationColumn,
  target: TargetColumn,
  { name, charsets }: { readonly name: string; readonly charsets: ReadonlySet<string> },
): ColumnLiterals {
  const value = chooseValue(column, target, charsets)
  const isEnum = column.code === columnType.enum && target.word === 'enum'
  return {
    value,
    matches: chooseMatch(target, { name, value }),
    patch: (out, bytes, start, end) => writePatch(out, name, bytes.subarray(start, end)),
    isLoose: isEnum ? (bytes, start, end) => bytes.readUIntLE(start, end - start) === 0 : never,
  }
}

function chooseValue(
  column: RelationColumn,
  target: TargetColumn,
  charsets: ReadonlySet<string>,
): WriteCell {
  const { code, type } = column
  switch (code) {
    case columnType.tiny:
    case columnType.short:
    case columnType.int24:
    case columnType.long:
      return writeInteger({ 1: 1, 2: 2, 9: 3, 3: 4 }[code] ?? 4, isUnsigned(type))
    case columnType.longlong:
      return isUnsigned(type)
        ? (out, bytes, at) => out.ascii(String(bytes.readBigUInt64LE(at)))
        : (out, bytes, at) => out.ascii(String(bytes.readBigInt64LE(at)))
    case columnType.float:
      // As a double, which holds it exactly: fewer digits would not be found again by a comparison.
      return (out, bytes, at) => out.ascii(formatDouble(bytes.readFloatLE(at)))
    case columnType.double:
      return (out, bytes, at) => out.ascii(formatDouble(bytes.readDoubleLE(at)))
    case columnType.bit:
      return (out, bytes, start, end) =>
        out.ascii(String(BigInt(`0x${bytes.toString('hex', start, end) || '0'}`)))
    case columnType.enum:
      if (target.word === 'enum' && target.type === type) return writeNumber
      break
    case columnType.set:
      if (target.word === 'set' && target.type === type) return writeBits
      break
    case columnType.decimal:
      return writeRead(column, (out, text) => out.ascii(String(text)))
    case columnType.json:
      return writeRead(column, (out, text) => {
        out.ascii('_utf8mb4')
        out.quotedText(String(text))
      })
    default:
  }
  return chooseText(column, charsets)
}

const writeNumber: WriteCell = (out, bytes, start, end) =>
  out.ascii(String(bytes.readUIntLE(start, end - start)))

const writeBits: WriteCell = (out, bytes, start, end) => {
  let bits = 0n
  for (let at = end - 1; at >= start; at--) bits = bits * 256n + BigInt(bytes[at] ?? 0)
  out.ascii(String(bits))
}

function writeInteger(size: number, unsigned: boolean): WriteCell {
  return unsigned
    ? (out, bytes, at) => out.ascii(String(bytes.readUIntLE(at, size)))
    : (out, bytes, at) => out.ascii(String(bytes.readIntLE(at, size)))
}

/** With an exponent it is a DOUBLE to the server, and not a DECIMAL. */
function formatDouble(value: number): string {
  return Object.is(value, -0) ? '-0e0' : value.toExponential().replace('e+', 'e')
}

function writeRead(
  column: RelationColumn,
  write: (out: SqlBuffer, value: string | Buffer) => void,
): WriteCell {
  const read: ReadCell = createCellReader(column)
  return (out, bytes, start, end) => write(out, read(bytes, start, end))
}

/** Dates, times and texts: a text of one character set goes as its own bytes. */
function chooseText(column: RelationColumn, charsets: ReadonlySet<string>): WriteCell {
  const { code, charset, type } = column
  const plain =
    (code === columnType.varchar ||
      code === columnType.varString ||
      code === columnType.string ||
      code === columnType.blob) &&
    charset !== undefined &&
    charset !== 'binary' &&
    !/^(?:uuid|inet)/i.test(type)
  const own = plain ? introducer(charset, charsets) : undefined
  if (own !== undefined) {
    return wide.has(charset ?? '')
      ? (out, bytes, start, end) => {
          out.ascii(`${own} `)
          out.hex(bytes, start, end)
        }
      : (out, bytes, start, end) => {
          out.ascii(own)
          out.quoted(bytes, start, end)
        }
  }
  return writeRead(column, (out, value) => {
    if (typeof value === 'string') {
      out.ascii('_utf8mb4')
      out.quotedText(value)
    } else {
      out.ascii('_binary')
      out.quoted(value, 0, value.length)
    }
  })
}

/** The name by which the target knows a character set; undefined where it does not. */
function introducer(charset: string, charsets: ReadonlySet<string>): string | undefined {
  const names = /^utf8(?:mb3)?$/.test(charset) ? ['utf8mb3', 'utf8'] : [charset]
  const known = names.find((name) => charsets.has(name))
  return known === undefined ? undefined : `_${known}`
}

type Matching = { readonly name: string; readonly value: WriteCell }

function chooseMatch(target: TargetColumn, { name, value }: Matching): WriteCell {
  const equal: WriteCell = (out, bytes, start, end) => {
    out.raw(own)
    out.ascii(' <=> ')
    value(out, bytes, start, end)
  }
  const own = Buffer.from(name)
  if (target.word === 'json') {
    return (out, bytes, start, end) => {
      out.raw(own)
      out.ascii(' <=> CAST(')
      value(out, bytes, start, end)
      out.ascii(' AS JSON)')
    }
  }
  if (!/char|text/.test(target.word) || target.charset === undefined) return equal
  const charset = target.charset
  return (out, bytes, start, end) => {
    if (end - start <= shortBytes) {
      equal(out, bytes, start, end)
      out.ascii(' AND ')
    }
    // Letters that the collation takes for one are two values.
    out.ascii('CAST(')
    out.raw(own)
    out.ascii(' AS BINARY) <=> CAST(CONVERT(')
    value(out, bytes, start, end)
    out.ascii(` USING ${charset}) AS BINARY)`)
  }
}

function writePatch(out: SqlBuffer, name: string, patch: Buffer): void {
  const steps = decodeJsonPatch(patch)
  if (steps.length === 0) throw new Fault('protocol', `read patch of ${name}: it has no step`)
  const own = Buffer.from(name)
  for (const { verb, path } of steps.toReversed()) out.ascii(`${callOf(verb, path)}(`)
  out.raw(own)
  for (const { path, value } of steps) {
    out.ascii(', _utf8mb4')
    out.quotedText(path)
    if (value !== undefined) {
      out.ascii(', CAST(_utf8mb4')
      out.quotedText(value)
      out.ascii(' AS JSON)')
    }
    out.ascii(')')
  }
}

/** A step that inserts moves the cells behind it in an array, and adds a member to an object. */
function callOf(verb: 'replace' | 'insert' | 'remove', path: string): string {
  if (verb === 'replace') return 'JSON_REPLACE'
  if (verb === 'remove') return 'JSON_REMOVE'
  return path.endsWith(']') ? 'JSON_ARRAY_INSERT' : 'JSON_INSERT'
}
