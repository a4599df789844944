import { crc32, inflateSync } from 'node:zlib'
import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'

/** https://dev.mysql.com/doc/dev/mysql-server/latest/namespacemysql_1_1binlog_1_1event.html and https://mariadb.com/kb/en/2-binlog-event-header/ */
export const eventType = {
  query: 2,
  stop: 3,
  rotate: 4,
  intVar: 5,
  appendBlock: 9,
  random: 13,
  userVariable: 14,
  formatDescription: 15,
  xid: 16,
  beginLoadQuery: 17,
  executeLoadQuery: 18,
  tableMap: 19,
  incident: 26,
  heartbeat: 27,
  rowsQuery: 29,
  gtid: 33,
  anonymousGtid: 34,
  previousGtids: 35,
  transactionContext: 36,
  viewChange: 37,
  xaPrepare: 38,
  partialUpdateRows: 39,
  transactionPayload: 40,
  heartbeatV2: 41,
  gtidTagged: 42,
  annotateRows: 160,
  binlogCheckpoint: 161,
  mariadbGtid: 162,
  gtidList: 163,
  startEncryption: 164,
  queryCompressed: 165,
} as const

export const magic = Buffer.from([0xfe, 0x62, 0x69, 0x6e])
export const headerSize = 19
export const checksumSize = 4
/** Made up by the sender: in no file. */
export const artificialFlag = 0x20
/** Its writer had the file open: cleared when the file is closed. */
export const inUseFlag = 0x01

export type EventHeader = {
  /** Seconds since 1970 by the source's clock. */
  readonly timestamp: number
  readonly type: number
  readonly serverId: number
  /** Header and checksum included. */
  readonly sizeBytes: number
  /** Where the event ends in its file, 32 bits of it. */
  readonly nextPosition: number
  readonly flags: number
}

export function decodeHeader(bytes: Buffer): EventHeader {
  const reader = new Reader(bytes, 'binary log event')
  const header = {
    timestamp: reader.u32le(),
    type: reader.u8(),
    serverId: reader.u32le(),
    sizeBytes: reader.u32le(),
    nextPosition: reader.u32le(),
    flags: reader.u16le(),
  }
  if (header.sizeBytes < headerSize) {
    throw new Fault('protocol', `read binary log event: a size of ${header.sizeBytes} bytes`)
  }
  return header
}

const rowTypes = new Set([20, 21, 22, 23, 24, 25, 30, 31, 32, 39, 166, 167, 168, 169, 170, 171])

/** Events that carry row images, compressed ones included. */
export function isRows(type: number): boolean {
  return rowTypes.has(type)
}

export type FormatDescription = {
  readonly serverVersion: string
  readonly family: 'mysql' | 'mariadb'
  /** Whether the events of the file end with a CRC32. */
  readonly checksums: boolean
  readonly stamp: number
  /** Length of the fixed part of an event type. */
  readonly postHeader: (type: number) => number
}

/** Reads a format description event, which always bears a checksum itself where the server knows of checksums. */
export function decodeFormat(event: Buffer): FormatDescription {
  const reader = new Reader(event, 'format description', headerSize)
  const version = reader.u16le()
  if (version !== 4) throw new Fault('unsupported', `read binary log: its format is ${version}`)
  const serverVersion = reader.text(50).replace(/\0.*$/s, '')
  reader.skip(5)
  const family = /mariadb/i.test(serverVersion) ? 'mariadb' : 'mysql'
  const algorithm = event[event.length - checksumSize - 1] ?? 0
  if (algorithm > 1) {
    throw new Fault('unsupported', `read binary log: checksum algorithm ${algorithm}`)
  }
  const lengths = reader.view(event.length - checksumSize - 1 - reader.pos)
  return {
    serverVersion,
    family,
    checksums: algorithm === 1,
    stamp: event.readUInt32LE(0),
    postHeader: (type) => lengths[type - 1] ?? 0,
  }
}

/** Whether the CRC32 at an event's end is that of the bytes before it. */
export function checksumHolds(event: Buffer): boolean {
  const end = event.length - checksumSize
  return crc32(event.subarray(0, end)) === event.readUInt32LE(end)
}

export type GtidEvent = {
  readonly id: string
  /** When the transaction was committed on this source; undefined where the server does not say. */
  readonly timeUs: bigint | undefined
  /** The one statement that follows ends the group by itself (MariaDB). */
  readonly standalone: boolean
}

/** MySQL's GTID event; `body` is without header and checksum. */
export function decodeGtid(body: Buffer): GtidEvent {
  const reader = new Reader(body, 'GTID event')
  reader.skip(1)
  const source = formatUuid(reader.view(16))
  const number = reader.u64le()
  // Then a type code 2 and two logical clocks (5.7), commit times of the last and maybe the first source (8.0.1).
  if (reader.left < 17 || reader.u8() !== 2) {
    return { id: `${source}:${number}`, timeUs: undefined, standalone: false }
  }
  reader.skip(16)
  const timeUs =
    reader.left >= 7 ? BigInt(reader.u48le()) + (BigInt(reader.u8()) << 48n) : undefined
  const bare = timeUs === undefined ? undefined : timeUs & ~(1n << 55n)
  return { id: `${source}:${number}`, timeUs: bare, standalone: false }
}

/** MariaDB's GTID event; the server's number is in the header. */
export function decodeMariadbGtid(body: Buffer, serverId: number): GtidEvent {
  const reader = new Reader(body, 'GTID event')
  const sequence = reader.u64le()
  const domain = reader.u32le()
  const flags = reader.u8()
  return {
    id: `${domain}-${serverId}-${sequence}`,
    timeUs: undefined,
    standalone: (flags & 1) !== 0,
  }
}

export function formatUuid(bytes: Buffer): string {
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

export type QueryEvent = {
  readonly threadId: number
  readonly errorCode: number
  readonly status: Buffer
  readonly database: Buffer
  readonly sql: Buffer
}

/** A statement; `body` is without header and checksum. */
export function decodeQuery(body: Buffer, type: number): QueryEvent {
  const reader = new Reader(body, 'query event')
  const threadId = reader.u32le()
  reader.skip(4)
  const databaseSize = reader.u8()
  const errorCode = reader.u16le()
  const status = reader.view(reader.u16le())
  const database = reader.view(databaseSize)
  reader.skip(1)
  const rest = reader.rest()
  const sql = type === eventType.queryCompressed ? inflateMariadb(rest) : rest
  return { threadId, errorCode, status, database, sql }
}

const inflatedMaxBytes = 1024 * 1024 * 1024

/** MariaDB's compressed text: a byte with the number of length bytes, the length, high byte first, then zlib. */
export function inflateMariadb(bytes: Buffer): Buffer {
  const reader = new Reader(bytes, 'compressed event')
  const lengthBytes = reader.u8() & 7
  if (lengthBytes === 0 || lengthBytes > 6) {
    throw new Fault('protocol', `read compressed event: a length of ${lengthBytes} bytes`)
  }
  const sizeBytes = reader.view(lengthBytes).readUIntBE(0, lengthBytes)
  if (sizeBytes > inflatedMaxBytes) {
    throw new Fault('protocol', `read compressed event: ${sizeBytes} bytes exceed the limit`)
  }
  try {
    return inflateSync(reader.rest(), { maxOutputLength: sizeBytes })
  } catch (error) {
    throw new Fault('protocol', 'read compressed event: it cannot be decompressed', {
      cause: error,
    })
  }
}

/** The whole previous-GTIDs event of MySQL as a set's text. */
export function decodePreviousGtids(body: Buffer): string {
  const reader = new Reader(body, 'previous GTIDs event')
  const head = reader.u64le()
  // Tagged sets (8.3) mark their format in the highest byte and put a tag behind each source.
  const tagged = head >> 56n === 1n
  const count = Number(tagged ? (head >> 8n) & 0xffffffffffffn : head)
  const parts: string[] = []
  for (let source = 0; source < count; source++) {
    const uuid = formatUuid(reader.view(16))
    const tag = tagged ? reader.text(reader.u8() >> 1) : ''
    const runs: string[] = []
    for (let intervals = reader.u64le(); intervals > 0n; intervals--) {
      const first = reader.u64le()
      runs.push(`${first}-${reader.u64le() - 1n}`)
    }
    parts.push([uuid, ...(tag === '' ? [] : [tag]), ...runs].join(':'))
  }
  return parts.join(',')
}

/** MariaDB's list at the head of each file: the last transaction of each domain and server. */
export function decodeGtidList(body: Buffer): string {
  const reader = new Reader(body, 'GTID list event')
  const count = reader.u32le() & 0x0fffffff
  const parts: string[] = []
  for (let index = 0; index < count; index++) {
    const domain = reader.u32le()
    const server = reader.u32le()
    parts.push(`${domain}-${server}-${reader.u64le()}`)
  }
  return parts.join(',')
}

/** Where a rotate event leads. */
export function decodeRotate(body: Buffer): { readonly offset: number; readonly name: string } {
  const reader = new Reader(body, 'rotate event')
  return { offset: Number(reader.u64le()), name: reader.rest().toString() }
}
