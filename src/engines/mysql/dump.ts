import { randomUUID } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { Fault, isFault } from '#base/faults'
import { systemTime } from '#base/time'
import {
  artificialFlag,
  checksumHolds,
  checksumSize,
  decodeFormat,
  decodeHeader,
  decodeRotate,
  type EventHeader,
  eventType,
  type FormatDescription,
  headerSize,
  inUseFlag,
} from './binlog/event.ts'
import type { Flavor } from './flavor.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { fromServer } from './protocol/server-error.ts'
import { decodeError } from './protocol/packets.ts'
import { Session } from './protocol/session.ts'

const commandBinlogDump = 0x12
const commandRegister = 0x15
/** The stream wakes at least so often: what the watch has learnt of an idle log goes on then. */
const heartbeatPeriodNs = 250_000_000
/** A server that sends not even heartbeats for so long is taken for gone: half-open connections look like this. */
const silenceMaxMs = 10_000
/** The server sent all that is in a file that it will not add to: not an answer to a dump that waits. */
const endHeader = 0xfe
const errorHeader = 0xff
const semiSyncMark = 0xef

/** What a dump brings, in order. */
export type Dumped =
  /** The bytes that follow are of this file, from its fourth byte on. */
  | { readonly kind: 'file'; readonly name: string }
  /** A run of an event's bytes; the event is complete and its checksum right when `header` is there. */
  | {
      readonly kind: 'bytes'
      readonly bytes: Buffer
      readonly ended: EndedEvent | undefined
    }
  | { readonly kind: 'heartbeat' }
  /** The present file ends within an event, as a killed server leaves it. Nothing comes behind this. */
  | { readonly kind: 'torn'; readonly said: string }
  /** Nothing more has come yet: a good moment to hand over what was gathered. */
  | { readonly kind: 'drained' }

export type EndedEvent = {
  readonly header: EventHeader
  /** The body without header and checksum, unless the event came in several pieces. */
  readonly body: Buffer | undefined
  readonly format: FormatDescription
}

export type DumpOptions = {
  readonly signal: AbortSignal
  readonly serverId: number
  /** Take part in semi-synchronous replication. */
  readonly semiSync: boolean
  /** Changes at every connection, for MySQL, which ends the older reader of the same one. */
  readonly replicaUuid: string
}

/** A connection that reads the binary log as a replica does. */
export class Dump implements AsyncDisposable {
  readonly #session: Session
  readonly #semiSync: boolean
  #format: FormatDescription | undefined

  private constructor(session: Session, semiSync: boolean) {
    this.#session = session
    this.#semiSync = semiSync
  }

  /** Connects and asks for a file from its first event on. */
  static async open(
    endpoint: Endpoint,
    flavor: Flavor,
    file: string,
    options: DumpOptions,
  ): Promise<Dump> {
    const session = await Session.open(endpoint, options)
    try {
      for (const statement of preparations(flavor, options)) await session.query(statement, options)
      const id = Buffer.alloc(4)
      id.writeUInt32LE(options.serverId)
      // Empty host, user and password, port 0, rank 0, source 0: only the number is of use.
      session.send(commandRegister, Buffer.concat([id, Buffer.alloc(3 + 2 + 4 + 4)]))
      const answer = await session.packet()
      if (answer[0] === errorHeader) throw fromServer(decodeError(answer), 'register as replica')
      const request = Buffer.alloc(10)
      request.writeUInt32LE(4, 0)
      // Flag 2 asks MariaDB for annotate events; on MySQL the same bit asks for heartbeats of another form.
      request.writeUInt16LE(flavor.family === 'mariadb' ? 2 : 0, 4)
      request.writeUInt32LE(options.serverId, 6)
      session.send(commandBinlogDump, Buffer.concat([request, Buffer.from(file)]))
      session.limitSilence(silenceMaxMs)
      return new Dump(session, options.semiSync)
    } catch (error) {
      session.destroy()
      throw error
    }
  }

  async *read(signal: AbortSignal): AsyncGenerator<Dumped, void, void> {
    using _ = this.#session.guard(signal)
    for (;;) {
      let piece = this.#session.pieceAtHand()
      if (!piece) {
        yield { kind: 'drained' }
        piece = await this.#session.piece()
      }
      const head = piece.bytes[0]
      if (head === errorHeader) {
        const error = decodeError(piece.bytes)
        if (!isTorn(error)) throw dumpFault(error)
        yield { kind: 'torn', said: error.message }
        return
      }
      if (head === endHeader) throw new Fault('unreachable', 'read binary log: the server ended it')
      const start = this.#semiSync && piece.bytes[1] === semiSyncMark ? 3 : 1
      const bytes = piece.bytes.subarray(start)
      const header = decodeHeader(bytes)
      if (isMadeUp(header)) {
        const word = this.#madeUp(header, bytes)
        if (word) yield word
      } else if (piece.last) {
        yield { kind: 'bytes', bytes, ended: this.#whole(header, bytes) }
      } else {
        yield* this.#pieces(header, bytes)
      }
    }
  }

  #madeUp(header: EventHeader, bytes: Buffer): Dumped | undefined {
    if (header.type === eventType.heartbeat || header.type === eventType.heartbeatV2) {
      return { kind: 'heartbeat' }
    }
    if (header.type === eventType.rotate) {
      return { kind: 'file', name: decodeName(bytes) }
    }
    return undefined
  }

  /** An event that came whole: its checksum is verified. */
  #whole(header: EventHeader, bytes: Buffer): EndedEvent {
    checkSize(header, bytes.length)
    if (header.type === eventType.formatDescription) {
      checkFormat(bytes)
      this.#format = decodeFormat(bytes)
    } else if (this.#format?.checksums && !checksumHolds(bytes)) {
      throw badChecksum(header)
    }
    const format = this.#knownFormat()
    const tail = format.checksums ? checksumSize : 0
    return { header, body: bytes.subarray(headerSize, bytes.length - tail), format }
  }

  /** An event of 16 MiB and more: its bytes pass on before the checksum at its end is known. */
  async *#pieces(header: EventHeader, first: Buffer): AsyncGenerator<Dumped, void, void> {
    const format = this.#knownFormat()
    const summed = header.sizeBytes - (format.checksums ? checksumSize : 0)
    let done = 0
    let sum = 0
    const tail: Buffer[] = []
    let bytes = first
    for (let last = false; ; ) {
      const inSum = Math.max(0, Math.min(bytes.length, summed - done))
      sum = crc32(bytes.subarray(0, inSum), sum)
      tail.push(Buffer.from(bytes.subarray(inSum)))
      done += bytes.length
      if (last) break
      yield { kind: 'bytes', bytes, ended: undefined }
      const next = await this.#session.piece()
      bytes = next.bytes
      last = next.last
    }
    checkSize(header, done)
    if (format.checksums && Buffer.concat(tail).readUInt32LE() !== sum) throw badChecksum(header)
    yield { kind: 'bytes', bytes, ended: { header, body: undefined, format } }
  }

  #knownFormat(): FormatDescription {
    if (this.#format) return this.#format
    throw new Fault('protocol', 'read binary log: no format description came first')
  }

  /** Tells a semi-synchronous source that everything before this place is safe. */
  acknowledge(file: string, offset: number): void {
    if (!this.#semiSync || !this.#session.alive) return
    const payload = Buffer.alloc(9 + Buffer.byteLength(file))
    payload[0] = semiSyncMark
    payload.writeBigUInt64LE(BigInt(offset), 1)
    payload.write(file, 9)
    this.#session.sendAlone(payload)
  }

  /** Leaves what comes to the system for a while, so that it is read at once. */
  async rest(delayMs: number, signal: AbortSignal): Promise<void> {
    this.#session.pause()
    try {
      await systemTime.sleep(delayMs, signal)
    } finally {
      this.#session.resume()
    }
  }

  /** The other connection to the server is dead: so may be this one. The reading ends with that. */
  abandon(reason: Fault): void {
    this.#session.destroy(reason)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The server is in the middle of sending: there is nothing to say good-bye to.
    this.#session.destroy()
  }
}

function preparations(flavor: Flavor, options: DumpOptions): string[] {
  const { semiSync, replicaUuid } = options
  return [
    'SET NAMES utf8mb4',
    // We read no faster than what we read can be kept: the server must not take that for a dead connection.
    'SET SESSION net_write_timeout = 3600',
    `SET @master_heartbeat_period = ${heartbeatPeriodNs}, @source_heartbeat_period = ${heartbeatPeriodNs}`,
    `SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'`,
    flavor.family === 'mariadb'
      ? 'SET @mariadb_slave_capability = 4'
      : `SET @slave_uuid = '${replicaUuid}', @replica_uuid = '${replicaUuid}'`,
    ...(semiSync ? ['SET @rpl_semi_sync_slave = 1, @rpl_semi_sync_replica = 1'] : []),
  ]
}

/** Fake rotates, heartbeats, and the format description of a dump that starts inside a file. */
function isMadeUp(header: EventHeader): boolean {
  return (
    (header.flags & artificialFlag) !== 0 ||
    header.type === eventType.heartbeat ||
    header.type === eventType.heartbeatV2 ||
    (header.type === eventType.rotate && header.nextPosition === 0)
  )
}

/** Whether a checksum follows is not known before the first format description: it is there when it is right. */
function decodeName(bytes: Buffer): string {
  const end = bytes.length - (checksumHolds(bytes) ? checksumSize : 0)
  return decodeRotate(bytes.subarray(headerSize, end)).name
}

function checkSize(header: EventHeader, size: number): void {
  if (header.sizeBytes === size) return
  throw new Fault(
    'protocol',
    `read binary log event at ${header.nextPosition}: ${size} bytes came of ${header.sizeBytes}`,
  )
}

/** The checksum was made while the in-use flag was clear. */
function checkFormat(bytes: Buffer): void {
  if (checksumHolds(bytes)) return
  const closed = Buffer.from(bytes)
  closed.writeUInt16LE(closed.readUInt16LE(17) & ~inUseFlag, 17)
  const algorithm = bytes[bytes.length - checksumSize - 1]
  if (algorithm === 1 && !checksumHolds(closed)) throw badChecksum(decodeHeader(bytes))
}

function badChecksum(header: EventHeader): Fault {
  return new Fault(
    'protocol',
    `read binary log event of type ${header.type} before ${header.nextPosition}: wrong checksum`,
  )
}

function isTorn({ number, message }: ReturnType<typeof decodeError>): boolean {
  return number === 1236 && /truncated in the middle of event/i.test(message)
}

/** 1236: the server could not read its own log, or does not have it. */
function dumpFault(error: ReturnType<typeof decodeError>): Fault {
  if (error.number !== 1236) return fromServer(error, 'read binary log')
  if (/could not find first log file|purged/i.test(error.message)) {
    return new Fault('log-lost', `read binary log: ${error.message}`, {
      hint: 'The server purged it; a new base backup closes the gap. Keep binary logs for longer.',
      cause: error,
    })
  }
  // A second reader of the same name, a shutdown, or a damaged log.
  return new Fault('unreachable', `read binary log: ${error.message}`, { cause: error })
}

/** The time stamp of a file's first event; undefined where this user may not read the binary log. */
export async function readStamp(
  endpoint: Endpoint,
  flavor: Flavor,
  file: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  const serverId = (0x80000000 | Math.floor(Math.random() * 0x7fffffff)) >>> 0
  const options = { signal, serverId, semiSync: false, replicaUuid: randomUUID() }
  try {
    await using dump = await Dump.open(endpoint, flavor, file, options)
    for await (const dumped of dump.read(signal)) {
      if (dumped.kind === 'bytes' && dumped.ended) return dumped.ended.format.stamp
    }
  } catch (error) {
    if (!isFault(error, 'denied')) throw error
  }
  return undefined
}
