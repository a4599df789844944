import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import { ServerError } from './server-error.ts'

/** A packet of this size is followed by another of the same payload. */
export const packetMax = 0xffffff

/** Cells of one row as the server's text protocol gives them; a NULL is null. */
export type Row = readonly (Buffer | null)[]

export type Result = {
  readonly columns: readonly string[]
  readonly rows: readonly Row[]
  readonly affectedRows: number
  readonly warnings: number
  /** The server's own sentence: `Records: 3  Deleted: 0 ...`. */
  readonly info: string
}

export function readLength(reader: Reader): number {
  const first = reader.u8()
  if (first < 0xfb) return first
  if (first === 0xfc) return reader.u16le()
  if (first === 0xfd) return reader.u24le()
  if (first === 0xfe) return Number(reader.u64le())
  throw new Fault('protocol', `read length: byte ${first} starts none`)
}

export function decodeRow(packet: Buffer, count: number): Row {
  const reader = new Reader(packet, 'row')
  const row: (Buffer | null)[] = []
  for (let index = 0; index < count; index++) {
    if (packet[reader.pos] === 0xfb) {
      reader.skip(1)
      row.push(null)
    } else {
      row.push(Buffer.from(reader.view(readLength(reader))))
    }
  }
  return row
}

/** Catalog, schema, table and original table come before the name; what follows is of no use here. */
export function decodeColumnName(packet: Buffer): string {
  const reader = new Reader(packet, 'column definition')
  for (let index = 0; index < 4; index++) reader.skip(readLength(reader))
  return reader.text(readLength(reader))
}

export function decodeOk(packet: Buffer): Result {
  const reader = new Reader(packet, 'answer', 1)
  const affectedRows = readLength(reader)
  readLength(reader)
  reader.skip(2)
  const warnings = reader.u16le()
  return { columns: [], rows: [], affectedRows, warnings, info: reader.rest().toString() }
}

/** An error packet, with or without an SQL state. */
export function decodeError(packet: Buffer): ServerError {
  const reader = new Reader(packet, 'error packet', 1)
  const number = reader.u16le()
  const marked = packet[reader.pos] === 0x23
  const state = marked ? reader.text(6).slice(1) : ''
  return new ServerError(number, state, reader.rest().toString())
}

/** Cuts a payload of known length into packets as it comes. */
export class PacketWriter {
  readonly #send: (bytes: Buffer) => void
  #left: number
  #inPacket = 0
  #sequence = 0
  readonly #endsFull: boolean

  constructor(sizeBytes: number, send: (bytes: Buffer) => void) {
    this.#left = sizeBytes
    this.#send = send
    this.#endsFull = sizeBytes % packetMax === 0
    this.#begin()
  }

  #begin(): void {
    this.#inPacket = Math.min(this.#left, packetMax)
    const header = Buffer.allocUnsafe(4)
    header.writeUIntLE(this.#inPacket, 0, 3)
    header[3] = this.#sequence++ & 0xff
    this.#send(header)
  }

  write(bytes: Buffer): void {
    let rest = bytes
    while (rest.length > 0) {
      if (this.#inPacket === 0) this.#begin()
      const part = rest.subarray(0, this.#inPacket)
      if (part.length === 0)
        throw new Fault('protocol', 'send statement: it is longer than was said')
      this.#send(part)
      this.#inPacket -= part.length
      this.#left -= part.length
      rest = rest.subarray(part.length)
    }
  }

  end(): void {
    if (this.#left > 0) throw new Fault('protocol', 'send statement: it is shorter than was said')
    // After a full packet the server waits for another, be it empty.
    if (this.#endsFull) this.#begin()
  }
}
