import { Fault, isFault } from '#base/faults'
import type { RelationColumn } from '#change/batch'
import { inflateRawSync, inflateSync } from 'node:zlib'
import { isUnsigned, numbersOf, textDecoder } from './changes/columns.ts'
import { formatJson } from './changes/json.ts'
import { columnType } from './changes/table-map.ts'
import { formatDateTime, formatDecimal, formatTime, formatTimestamp } from './changes/temporal.ts'

/**
 * A cell's value as a SELECT gives it in a session of UTC: text, or bytes where the type has no character set. FLOAT is
 * printed so that it reads back as the same number.
 */
export type ReadCell = (bytes: Buffer, start: number, end: number) => string | Buffer

/** How the cells of a column are read: made once for a column. */
export function createCellReader(column: RelationColumn): ReadCell {
  const read = choose(column)
  return (bytes, start, end) => {
    // A size that does not fit the type is no value of it.
    if (start < 0 || end < start || end > bytes.length) {
      throw new Fault('protocol', `read column ${column.name}: no such bytes`)
    }
    try {
      return read(bytes, start, end)
    } catch (error) {
      if (isFault(error)) throw error
      throw new Fault('protocol', `read column ${column.name}: it is no ${column.type}`, {
        cause: error,
      })
    }
  }
}

function choose(column: RelationColumn): ReadCell {
  const { code, modifier, type } = column
  switch (code) {
    case columnType.tiny:
    case columnType.short:
    case columnType.int24:
    case columnType.long:
      return integer(code, type)
    case columnType.longlong:
      return bigInteger(type)
    case columnType.float:
      return (bytes, at) => shortest(bytes.readFloatLE(at))
    case columnType.double:
      return (bytes, at) => exponent(String(signedZero(bytes.readDoubleLE(at))))
    case columnType.decimal: {
      const fill = filler(type, (modifier >> 8) + ((modifier & 255) > 0 ? 1 : 0))
      return (bytes, at) => fill(formatDecimal(bytes, at, modifier >> 8, modifier & 255))
    }
    case columnType.year:
      return (bytes, at) => (bytes[at] === 0 ? '0000' : String(1900 + (bytes[at] ?? 0)))
    case columnType.bit:
      return copy
    case columnType.enum:
      return member(type)
    case columnType.set:
      return members(type)
    case columnType.json:
      return (bytes, start, end) => formatJson(bytes.subarray(start, end))
    case columnType.geometry:
    case columnType.vector:
      return copy
    default:
      return chooseTime(column) ?? text(column)
  }
}

function chooseTime({ code, modifier }: RelationColumn): ReadCell | undefined {
  switch (code) {
    case columnType.date:
    case columnType.newdate:
      return (bytes, at) => {
        const packed = bytes.readUIntLE(at, 3)
        return formatDateTime(
          ((packed >> 9) * 13 + ((packed >> 5) & 15)) * 4_194_304 + (packed & 31) * 131_072,
        ).slice(0, 10)
      }
    case columnType.datetime2:
      return (bytes, at) =>
        formatDateTime(bytes.readUIntBE(at, 5) - 0x8000000000) + fraction(bytes, at + 5, modifier)
    case columnType.timestamp2:
      return (bytes, at) =>
        formatTimestamp(bytes.readUInt32BE(at)) + fraction(bytes, at + 4, modifier)
    case columnType.time2:
      return (bytes, at) => time(bytes, at, modifier)
    case columnType.timestamp:
      return (bytes, at) => formatTimestamp(bytes.readUInt32LE(at))
    case columnType.datetime:
      return (bytes, at) => digits(bytes.readBigUInt64LE(at))
    case columnType.time:
      return (bytes, at) => oldTime(bytes.readIntLE(at, 3))
    default:
      return undefined
  }
}

const copy: ReadCell = (bytes, start, end) => bytes.subarray(start, end)

function integer(code: number, type: string): ReadCell {
  const size = { 1: 1, 2: 2, 9: 3, 3: 4 }[code] ?? 4
  const [width = 0] = numbersOf(type)
  const fill = filler(type, width)
  return isUnsigned(type)
    ? (bytes, at) => fill(String(bytes.readUIntLE(at, size)))
    : (bytes, at) => String(bytes.readIntLE(at, size))
}

function bigInteger(type: string): ReadCell {
  const [width = 0] = numbersOf(type)
  const fill = filler(type, width)
  return isUnsigned(type)
    ? (bytes, at) => fill(String(bytes.readBigUInt64LE(at)))
    : (bytes, at) => String(bytes.readBigInt64LE(at))
}

/** ZEROFILL makes numbers as wide as their type says. */
function filler(type: string, width: number): (text: string) => string {
  return /zerofill/i.test(type) ? (text) => text.padStart(width, '0') : (text) => text
}

function signedZero(value: number): string | number {
  return Object.is(value, -0) ? '-0' : value
}

/** The fewest digits that read back as the same number of four bytes. */
function shortest(value: number): string {
  for (let digits = 6; digits < 9; digits++) {
    const text = value.toPrecision(digits)
    if (Math.fround(Number(text)) === value) return exponent(String(signedZero(Number(text))))
  }
  return exponent(String(signedZero(value)))
}

function exponent(text: string): string {
  return text.replace('e+', 'e')
}

/** Hundredths, ten-thousandths or millionths, by the number of digits. */
function fraction(bytes: Buffer, at: number, digitCount: number): string {
  if (digitCount === 0) return ''
  const size = (digitCount + 1) >> 1
  const value = bytes.readUIntBE(at, size)
  return `.${String(value)
    .padStart(size * 2, '0')
    .slice(0, digitCount)}`
}

/** Of one number with its fraction, so that order is that of bytes: the middle is zero. */
function time(bytes: Buffer, at: number, digitCount: number): string {
  const size = (digitCount + 1) >> 1
  const unit = 256 ** size
  const value = bytes.readUIntBE(at, 3 + size) - 0x800000 * unit
  const rest = Math.abs(value)
  const text = formatTime(Math.floor(rest / unit))
  const part = String(rest % unit).padStart(size * 2, '0')
  const tail = digitCount === 0 ? '' : `.${part.slice(0, digitCount)}`
  return `${value < 0 ? '-' : ''}${text}${tail}`
}

/** Tables of before 5.6: as decimal digits. */
function digits(value: bigint): string {
  const text = String(value).padStart(14, '0')
  return text.replace(/^(\d+)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/, '$1-$2-$3 $4:$5:$6')
}

function oldTime(value: number): string {
  const text = String(Math.abs(value)).padStart(6, '0')
  return `${value < 0 ? '-' : ''}${text.replace(/^(\d+)(\d\d)(\d\d)$/, '$1:$2:$3')}`
}

/** What stands in the quotes of `enum('a','b''c')`. */
export function membersOf(type: string): string[] {
  const inside = /^(?:enum|set)\((.*)\)/is.exec(type)?.[1] ?? ''
  return [...inside.matchAll(/'((?:[^']|'')*)'/gs)].map((found) =>
    (found[1] ?? '').replaceAll("''", "'"),
  )
}

function member(type: string): ReadCell {
  const names = membersOf(type)
  return (bytes, start, end) => {
    const number = bytes.readUIntLE(start, end - start)
    // What was none of them when it was written.
    if (number === 0) return ''
    const name = names[number - 1]
    if (name === undefined) throw new Fault('protocol', `read ${type}: it has no member ${number}`)
    return name
  }
}

function members(type: string): ReadCell {
  const names = membersOf(type)
  return (bytes, start, end) => {
    const found: string[] = []
    for (const [index, name] of names.entries()) {
      const byte = start + (index >> 3)
      if (byte < end && ((bytes[byte] ?? 0) >> (index & 7)) & 1) found.push(name)
    }
    return found.join(',')
  }
}

function text(column: RelationColumn): ReadCell {
  const { charset = 'utf8mb4', type, modifier } = column
  const unpack =
    column.code === columnType.blobCompressed || column.code === columnType.varcharCompressed
  if (/^(?:uuid|inet)/i.test(type)) return copy
  if (charset === 'binary') {
    if (unpack) return (bytes, start, end) => inflateColumn(bytes.subarray(start, end))
    // Zero bytes at the end are not in the log.
    return column.code === columnType.string
      ? (bytes, start, end) => padded(bytes, start, end, modifier)
      : copy
  }
  const decode = textDecoder(charset)
  if (!unpack) return decode
  return (bytes, start, end) => {
    const plain = inflateColumn(bytes.subarray(start, end))
    return decode(plain, 0, plain.length)
  }
}

function padded(bytes: Buffer, start: number, end: number, size: number): Buffer {
  if (end - start >= size) return bytes.subarray(start, end)
  return Buffer.concat([bytes.subarray(start, end)], size)
}

const inflatedMaxBytes = 1024 * 1024 * 1024

/**
 * A value of MariaDB's compressed columns: a byte whose low three bits are the size of the length behind it and whose fourth
 * says that zlib's own head is left out, the length, high byte first, then the bytes. A zero byte stands before those that
 * were not compressed. https://mariadb.com/kb/en/storage-engine-independent-column-compression/
 */
function inflateColumn(bytes: Buffer): Buffer {
  const head = bytes[0]
  if (head === undefined || head === 0) return bytes.subarray(1)
  const size = head & 7
  const plainBytes = bytes.readUIntBE(1, Math.max(1, size))
  if (plainBytes > inflatedMaxBytes) {
    throw new Fault('protocol', `read compressed column: ${plainBytes} bytes exceed the limit`)
  }
  const options = { maxOutputLength: Math.max(1, plainBytes) }
  const packed = bytes.subarray(1 + size)
  return (head & 8) === 0 ? inflateSync(packed, options) : inflateRawSync(packed, options)
}
