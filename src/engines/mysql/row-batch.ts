import { Reader } from '#base/bytes'
import {
  decodeHeader,
  type EventHeader,
  eventType,
  type FormatDescription,
  headerSize,
  inflateMariadb,
} from './binlog/event.ts'
import { encodeEvent, type LargeEvent } from './binlog/stream.ts'
import { parseFlavor } from './flavor.ts'
import type { Selection } from './targets.ts'

/** Row events go to the target in statements of about this size: a transaction of any length needs no more memory. */
const statementBytes = 2 * 1024 * 1024
const statementEndFlag = 1
const noForeignKeysFlag = 2

type TableMap = { readonly event: Buffer; readonly kept: boolean }

/** A statement that is never whole in memory: table maps, the event's changed first bytes, and the rest of it. */
export type LargeStatement = {
  readonly maps: readonly Buffer[]
  readonly head: Buffer
  readonly event: LargeEvent
  readonly checksums: boolean
}

/**
 * Gathers table maps and row events until a statement of the source ends, or enough has come: then the last row event
 * is marked as a statement's end, and what follows starts again with the table maps.
 */
export class RowBatch {
  readonly #format: FormatDescription
  readonly #selection: Selection
  /** From MySQL 9.6 on the changes of cascading foreign keys are events of their own: none must happen by itself. */
  readonly #withoutForeignKeys: boolean
  readonly #idBytes: number
  #maps = new Map<string, TableMap>()
  #rows: Buffer[] = []
  #bytes = 0

  constructor(format: FormatDescription, selection: Selection, nativeForeignKeys: boolean) {
    this.#format = format
    this.#selection = selection
    this.#withoutForeignKeys =
      parseFlavor(format.serverVersion).cascadesLogged && !nativeForeignKeys
    this.#idBytes = format.postHeader(eventType.tableMap) === 6 ? 4 : 6
  }

  /** Takes an event; yields the events of each statement that is ready. */
  *take(header: EventHeader, body: Buffer): Generator<readonly Buffer[], void, void> {
    const id = body.subarray(0, this.#idBytes).toString('hex')
    if (header.type === eventType.tableMap) {
      const event = encodeEvent(header, body, this.#format.checksums)
      this.#maps.set(id, { event, kept: this.#keeps(body) })
      return
    }
    const ends = ((body[this.#idBytes] ?? 0) & statementEndFlag) !== 0
    // An event for no table only says that the statement ends.
    if (this.#maps.get(id)?.kept) this.#add(...inflateRows(header, body, this.#idBytes))
    if (ends) {
      yield* this.#ready()
      this.#maps.clear()
    } else if (this.#bytes >= statementBytes) {
      yield* this.#ready()
    }
  }

  /**
   * A row event too large to be held, as a statement of its own: what is ready goes first, then the table maps and
   * the event in pieces. Undefined when its table is not wanted.
   */
  *large(
    event: LargeEvent,
    head: Buffer,
  ): Generator<readonly Buffer[] | LargeStatement, void, void> {
    const flagsAt = headerSize + this.#idBytes
    const id = head.subarray(headerSize, flagsAt).toString('hex')
    yield* this.#ready()
    if (this.#maps.get(id)?.kept) {
      const own = Buffer.from(head)
      const flags = own.readUInt16LE(flagsAt) | statementEndFlag
      own.writeUInt16LE(flags | (this.#withoutForeignKeys ? noForeignKeysFlag : 0), flagsAt)
      yield { maps: this.#keptMaps(), head: own, event, checksums: this.#format.checksums }
    }
    if (((head[flagsAt] ?? 0) & statementEndFlag) !== 0) this.#maps.clear()
  }

  #keptMaps(): Buffer[] {
    return [...this.#maps.values()].filter((map) => map.kept).map((map) => map.event)
  }

  #keeps(body: Buffer): boolean {
    if (this.#selection.everything) return true
    const reader = new Reader(body, 'table map event', this.#idBytes + 2)
    const database = reader.text(reader.u8())
    reader.skip(1)
    return this.#selection.accepts(database, reader.text(reader.u8()))
  }

  #add(header: EventHeader, body: Buffer): void {
    const own = Buffer.from(body)
    const flags = own.readUInt16LE(this.#idBytes) & ~statementEndFlag
    own.writeUInt16LE(flags | (this.#withoutForeignKeys ? noForeignKeysFlag : 0), this.#idBytes)
    this.#rows.push(encodeEvent(header, own, false))
    this.#bytes += own.length
  }

  *#ready(): Generator<readonly Buffer[], void, void> {
    if (this.#rows.length === 0) return
    const maps = this.#keptMaps()
    const last = this.#rows.length - 1
    const rows = this.#rows.map((event, index) => this.#finish(event, index === last))
    this.#rows = []
    this.#bytes = 0
    yield [...maps, ...rows]
  }

  #finish(event: Buffer, isLast: boolean): Buffer {
    const header = decodeHeader(event)
    const body = event.subarray(event.length - (header.sizeBytes - headerSize))
    if (isLast) body[this.#idBytes] = (body[this.#idBytes] ?? 0) | statementEndFlag
    return encodeEvent(header, body, this.#format.checksums)
  }
}

/** MariaDB's compressed row events, which no BINLOG statement takes: 166 to 168 are 23 to 25, 169 to 171 are 30 to 32. */
function inflateRows(header: EventHeader, body: Buffer, idBytes: number): [EventHeader, Buffer] {
  if (header.type < 166 || header.type > 171) return [header, body]
  const second = header.type >= 169
  const type = second ? header.type - 169 + 30 : header.type - 166 + 23
  const reader = new Reader(body, 'compressed row event', idBytes + 2)
  if (second) reader.skip(reader.u16le() - 2)
  const columns = readCount(reader)
  const bitmaps = type === 24 || type === 31 ? 2 : 1
  reader.skip(bitmaps * Math.ceil(columns / 8))
  const fixed = body.subarray(0, reader.pos)
  return [{ ...header, type }, Buffer.concat([fixed, inflateMariadb(reader.rest())])]
}

function readCount(reader: Reader): number {
  const first = reader.u8()
  return first < 0xfb ? first : reader.u16le()
}
