import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import { formatDateTime, formatDecimal, formatTime } from './temporal.ts'
import { readPacked } from './table-map.ts'

/**
 * The binary form of JSON, and its text as the server prints it.
 * https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html
 */
const kind = {
  smallObject: 0,
  largeObject: 1,
  smallArray: 2,
  largeArray: 3,
  literal: 4,
  int16: 5,
  uint16: 6,
  int32: 7,
  uint32: 8,
  int64: 9,
  uint64: 10,
  double: 11,
  string: 12,
  opaque: 15,
} as const

/** The server allows no deeper ones. */
const depthMax = 100

export function formatJson(bytes: Buffer): string {
  // The value of a column that had to hold something, and did not.
  if (bytes.length === 0) return 'null'
  const parts: string[] = []
  writeValue(bytes[0] ?? 0, bytes.subarray(1), parts, 0)
  return parts.join('')
}

/** `bytes` begins at the value, and may go on behind it. */
function writeValue(type: number, bytes: Buffer, parts: string[], depth: number): void {
  if (depth > depthMax) throw broken('it is too deep')
  switch (type) {
    case kind.smallObject:
    case kind.largeObject:
    case kind.smallArray:
    case kind.largeArray:
      return writeContainer(type, bytes, parts, depth)
    case kind.literal:
      return void parts.push(literal(new Reader(bytes, 'JSON').u8()))
    default:
      return void parts.push(scalar(type, new Reader(bytes, 'JSON')))
  }
}

function writeContainer(type: number, bytes: Buffer, parts: string[], depth: number): void {
  const isObject = type === kind.smallObject || type === kind.largeObject
  const wide = type === kind.largeObject || type === kind.largeArray
  const reader = new Reader(bytes, 'JSON')
  const offset = () => (wide ? reader.u32le() : reader.u16le())
  const count = offset()
  const size = offset()
  const keySize = isObject ? (wide ? 6 : 4) : 0
  if (size > bytes.length || count * (keySize + (wide ? 5 : 3)) > size) {
    throw broken('a container is larger than its value')
  }
  const own = bytes.subarray(0, size)
  const keys = Array.from({ length: isObject ? count : 0 }, () => {
    const at = offset()
    return new Reader(own, 'JSON', checkOffset(at, size)).text(reader.u16le())
  })
  parts.push(isObject ? '{' : '[')
  for (let index = 0; index < count; index++) {
    if (index > 0) parts.push(', ')
    if (isObject) parts.push(quote(keys[index] ?? ''), ': ')
    const inner = reader.u8()
    if (isInline(inner, wide)) {
      const view = reader.view(wide ? 4 : 2)
      writeValue(inner, view, parts, depth + 1)
    } else {
      const at = checkOffset(offset(), size)
      writeValue(inner, own.subarray(at), parts, depth + 1)
    }
  }
  parts.push(isObject ? '}' : ']')
}

function checkOffset(at: number, size: number): number {
  if (at > size) throw broken('an offset leads out of it')
  return at
}

function isInline(type: number, wide: boolean): boolean {
  if (type === kind.literal || type === kind.int16 || type === kind.uint16) return true
  return wide && (type === kind.int32 || type === kind.uint32)
}

function literal(code: number): string {
  if (code === 0) return 'null'
  if (code === 1) return 'true'
  if (code === 2) return 'false'
  throw broken(`literal ${code}`)
}

function scalar(type: number, reader: Reader): string {
  switch (type) {
    case kind.int16:
      return String((reader.u16le() << 16) >> 16)
    case kind.uint16:
      return String(reader.u16le())
    case kind.int32:
      return String(reader.u32le() | 0)
    case kind.uint32:
      return String(reader.u32le())
    case kind.int64:
      return String(BigInt.asIntN(64, reader.u64le()))
    case kind.uint64:
      return String(reader.u64le())
    case kind.double:
      return formatDouble(reader.view(8).readDoubleLE())
    case kind.string:
      return quote(reader.text(readSize(reader)))
    case kind.opaque:
      return opaque(reader.u8(), reader.view(readSize(reader)))
    default:
      throw broken(`type ${type}`)
  }
}

/** Seven bits a byte, the lowest first. */
function readSize(reader: Reader): number {
  let size = 0
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = reader.u8()
    size += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) return size
  }
  throw broken('a length has no end')
}

/** A whole number keeps its point, as the server prints it. */
function formatDouble(value: number): string {
  const text = String(value).replace('e+', 'e')
  return Number.isInteger(value) && !/e/.test(text) ? `${text}.0` : text
}

/** Values of types that JSON does not have. */
function opaque(type: number, value: Buffer): string {
  if (type === 246) {
    const reader = new Reader(value, 'JSON')
    return formatDecimal(value, 2, reader.u8(), reader.u8())
  }
  if (type === 10 || type === 11 || type === 12 || type === 7) {
    const packed = BigInt.asIntN(64, new Reader(value, 'JSON').u64le())
    return quote(packedTime(type, packed))
  }
  return quote(`base64:type${type}:${value.toString('base64')}`)
}

/** Of the server's memory: date and time above 24 bits of microseconds. */
function packedTime(type: number, packed: bigint): string {
  const negative = packed < 0n
  const value = negative ? -packed : packed
  const whole = Number(value >> 24n)
  const micros = String(value & 0xffffffn).padStart(6, '0')
  if (type === 11) return `${negative ? '-' : ''}${formatTime(whole)}.${micros}`
  const text = formatDateTime(whole)
  return type === 10 ? text.slice(0, 10) : `${text}.${micros}`
}

const escapes: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
}

function quote(text: string): string {
  const escaped = text.replaceAll(
    // eslint-disable-next-line no-control-regex
    /["\\\u0000-\u001f]/g,
    (char) => escapes[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
  return `"${escaped}"`
}

function broken(said: string): Fault {
  return new Fault('protocol', `read JSON value: ${said}`)
}

/** One step of a patch to a JSON document. */
export type JsonStep = {
  readonly verb: 'replace' | 'insert' | 'remove'
  readonly path: string
  /** As text; undefined for a removal. */
  readonly value: string | undefined
}

/** What a patch does to the document before it, in this order. */
export function decodeJsonPatch(bytes: Buffer): JsonStep[] {
  const verbs = ['replace', 'insert', 'remove'] as const
  const reader = new Reader(bytes, 'JSON patch')
  const steps: JsonStep[] = []
  while (reader.left > 0) {
    const verb = verbs[reader.u8()]
    if (!verb) throw broken('an unknown step of a patch')
    const path = reader.text(readPacked(reader))
    const value = verb === 'remove' ? undefined : formatJson(reader.view(readPacked(reader)))
    steps.push({ verb, path, value })
  }
  return steps
}
