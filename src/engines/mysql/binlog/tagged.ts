import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import { formatUuid, type GtidEvent } from './event.ts'

/**
 * MySQL 8.3's event of a tagged GTID is written by a serialization library: a version, a size, the last field that
 * may not be ignored, then fields, each with its number, all in variable-length integers whose count of bytes stands
 * in the low bits of the first.
 * https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_LIBS_MYSQL_SERIALIZATION.html
 */
export function decodeTaggedGtid(body: Buffer): GtidEvent {
  const reader = new Reader(body, 'tagged GTID event')
  readUnsigned(reader)
  readUnsigned(reader)
  readUnsigned(reader)
  let source = ''
  let number = 0n
  let tag = ''
  let timeUs: bigint | undefined
  while (reader.left > 0) {
    const field = Number(readUnsigned(reader))
    if (field === 0) readUnsigned(reader)
    else if (field === 1) source = readUuid(reader)
    else if (field === 2) number = readSigned(reader)
    else if (field === 3) tag = reader.text(Number(readUnsigned(reader)))
    else if (field === 4 || field === 5) readSigned(reader)
    else if (field === 6) {
      timeUs = readUnsigned(reader)
      break
    } else throw new Fault('protocol', `read tagged GTID event: unexpected field ${field}`)
  }
  const name = tag === '' ? source : `${source}:${tag}`
  return { id: `${name}:${number}`, timeUs, standalone: false }
}

function readUuid(reader: Reader): string {
  const bytes = Buffer.alloc(16)
  for (let index = 0; index < 16; index++) bytes[index] = Number(readUnsigned(reader))
  return formatUuid(bytes)
}

function readUnsigned(reader: Reader): bigint {
  const first = reader.u8()
  let more = 0
  while (more < 8 && (first >> more) & 1) more += 1
  let value = more === 8 ? 0n : BigInt(first >> (more + 1))
  const shift = BigInt(more === 8 ? 0 : 7 - more)
  for (let index = 0; index < more; index++) {
    value |= BigInt(reader.u8()) << (shift + BigInt(8 * index))
  }
  return value
}

/** Zigzag-like: the sign stands in the lowest bit. */
function readSigned(reader: Reader): bigint {
  const value = readUnsigned(reader)
  return value & 1n ? -(value >> 1n) - 1n : value >> 1n
}
