import { Fault } from '#base/faults'
import type { LogBlock } from '#change'
import {
  checksumSize,
  decodeFormat,
  decodeHeader,
  type EventHeader,
  eventType,
  type FormatDescription,
  headerSize,
  magic,
} from '../binlog/event.ts'
import { unpackPayload } from '../binlog/payload.ts'
import { fileNumber, type Place } from '../position.ts'

/** An event of the log, in the bytes that it came in. */
export type RawEvent = {
  readonly header: EventHeader
  readonly bytes: Buffer
  /** Of the body, without header and checksum, in `bytes`. */
  readonly start: number
  readonly end: number
  readonly format: FormatDescription
  /** Where it ends in the log. */
  readonly place: Place
}

/** Rows of the largest size that the servers allow fit. */
const eventMaxBytes = 1100 * 1024 * 1024

/** Puts events together from runs of bytes that are cut anywhere. One file after the other, each from its beginning. */
export class EventAssembler {
  #file = -1
  #offset = 0
  #format: FormatDescription | undefined
  /** An event of which a part came. */
  #held: Buffer = Buffer.alloc(0)
  #heldBytes = 0;

  /** The events that are complete with this block. What is left open when another file begins was cut by a crash. */
  *take(block: LogBlock): Generator<RawEvent, void, void> {
    const file = fileNumber(block.segment)
    if (block.offset === 0) this.#begin(file)
    const end = this.#offset + this.#heldBytes
    if (file !== this.#file || block.offset !== end) {
      throw new Fault(
        'gap',
        `read binary log ${block.segment}: ${block.offset} follows ${this.#file}:${end}`,
      )
    }
    const { bytes } = block
    let at = 0
    if (this.#offset === 0) {
      // The four bytes at its head always come in one run.
      if (bytes.length < magic.length || !bytes.subarray(0, magic.length).equals(magic)) {
        throw new Fault('protocol', `read binary log ${block.segment}: it is none`)
      }
      at = this.#offset = magic.length
    }
    if (this.#heldBytes > 0) {
      at += this.#hold(bytes)
      if (this.#heldBytes < this.#held.length || this.#heldBytes === 0) return
      const whole = this.#held
      this.#heldBytes = 0
      yield this.#event(whole, 0, decodeHeader(whole))
    }
    while (bytes.length - at >= headerSize) {
      const header = readHeader(bytes, at)
      if (bytes.length - at < header.sizeBytes) break
      yield this.#event(bytes, at, header)
      at += header.sizeBytes
    }
    if (at < bytes.length) this.#hold(bytes.subarray(at))
  }

  #begin(file: number): void {
    this.#file = file
    this.#offset = 0
    this.#format = undefined
    this.#heldBytes = 0
  }

  /** Takes what is missing of an event; returns how many bytes that were. */
  #hold(bytes: Buffer): number {
    let taken = 0
    if (this.#heldBytes === 0) this.#held = Buffer.allocUnsafe(headerSize)
    if (this.#heldBytes < headerSize) {
      taken = bytes.copy(this.#held, this.#heldBytes, 0, headerSize - this.#heldBytes)
      this.#heldBytes += taken
      if (this.#heldBytes < headerSize) {
        // As long as the header is not whole, the event is not either.
        return taken
      }
      const whole = Buffer.allocUnsafe(readHeader(this.#held, 0).sizeBytes)
      this.#held.copy(whole)
      this.#held = whole
    }
    const more = bytes.copy(this.#held, this.#heldBytes, taken, taken + this.#held.length)
    this.#heldBytes += more
    return taken + more
  }

  #event(bytes: Buffer, at: number, header: EventHeader): RawEvent {
    const end = at + header.sizeBytes
    if (header.type === eventType.formatDescription) {
      this.#format = decodeFormat(bytes.subarray(at, end))
    }
    const format = this.#format
    if (!format) throw new Fault('protocol', 'read binary log: no format description came first')
    this.#offset += header.sizeBytes
    const tail = format.checksums ? checksumSize : 0
    const place = { file: this.#file, offset: this.#offset, stamp: format.stamp }
    return { header, bytes, start: at + headerSize, end: end - tail, format, place }
  }
}

function readHeader(bytes: Buffer, at: number): EventHeader {
  const header = decodeHeader(bytes.subarray(at, at + headerSize))
  if (header.sizeBytes > eventMaxBytes) {
    throw new Fault('protocol', `read binary log: an event of ${header.sizeBytes} bytes`)
  }
  return header
}

/** The events of a compressed transaction: without checksums, and all of them end where the outer one does. */
export async function* unpackEvents(outer: RawEvent): AsyncGenerator<RawEvent, void, void> {
  const format = { ...outer.format, checksums: false }
  const { place } = outer
  for await (const bytes of unpackPayload(outer.bytes.subarray(outer.start, outer.end))) {
    const header = decodeHeader(bytes)
    yield { header, bytes, start: headerSize, end: bytes.length, format, place }
  }
}
