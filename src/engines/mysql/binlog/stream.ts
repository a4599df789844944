import { crc32 } from 'node:zlib'
import { Fault } from '#base/faults'
import type { LogReader, LogSegment, Position } from '#change'
import { fileNumber, parsePlace, type Place } from '../position.ts'
import {
  checksumHolds,
  checksumSize,
  decodeFormat,
  decodeHeader,
  type EventHeader,
  eventType,
  type FormatDescription,
  headerSize,
  isRows,
  magic,
} from './event.ts'

/** An event of an archived log. */
export type LogEvent = {
  readonly header: EventHeader
  /** Without header and checksum; undefined when nobody asked for it. */
  readonly body: Buffer | undefined
  readonly format: FormatDescription
  readonly history: string
  readonly segment: string
  /** Where it ends. */
  readonly end: Place
  /** In place of a body too large to be held: taken before the next event is asked for, or passed over. */
  readonly large?: LargeEvent | undefined
}

/** Row events from this size on come in pieces to whoever can take them so. */
export const largeEventBytes = 8 * 1024 * 1024
const pieceBytes = 1024 * 1024

/** A row event whose bytes are still on their way. */
export class LargeEvent {
  /** Header, checksum and all. */
  readonly sizeBytes: number
  readonly #pull: Pull
  readonly #checksums: boolean
  readonly #what: string
  #left: number
  #sum = 0

  constructor(pull: Pull, sizeBytes: number, checksums: boolean, what: string) {
    this.#pull = pull
    this.sizeBytes = sizeBytes
    this.#checksums = checksums
    this.#what = what
    this.#left = sizeBytes - (checksums ? checksumSize : 0)
  }

  /** The event without its checksum, which is verified before the last piece is given out. */
  async *pieces(): AsyncGenerator<Buffer, void, void> {
    while (this.#left > 0) {
      const size = Math.min(this.#left, pieceBytes)
      if (!(await this.#pull.has(size))) throw this.#broken('it ends inside an event')
      const piece = this.#pull.take(size)
      this.#left -= size
      this.#sum = crc32(piece, this.#sum)
      if (this.#left === 0) await this.#verify()
      yield piece
    }
  }

  /** Passes over what was not taken. */
  async finish(): Promise<void> {
    for await (const _ of this.pieces());
  }

  async #verify(): Promise<void> {
    if (!this.#checksums) return
    if (!(await this.#pull.has(checksumSize))) throw this.#broken('it ends inside an event')
    if (this.#pull.take(checksumSize).readUInt32LE() !== this.#sum) {
      throw this.#broken("an event's checksum is wrong")
    }
  }

  #broken(said: string): Fault {
    return new Fault('corrupt', `read log segment ${this.#what}: ${said}`)
  }
}

/** A single event of more than this is refused: a row of the largest size the servers allow fits. */
const eventMaxBytes = 1100 * 1024 * 1024

/** Reads runs of bytes off a stream of chunks. */
class Pull {
  readonly #source: AsyncIterator<Buffer>
  #buffer: Buffer = Buffer.alloc(0)
  #pos = 0
  #ended = false

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** Whether `size` bytes are there or come. */
  async has(size: number): Promise<boolean> {
    const rest = this.#buffer.subarray(this.#pos)
    if (rest.length >= size) return true
    const parts = [rest]
    let have = rest.length
    while (have < size && !this.#ended) {
      const next = await this.#source.next()
      if (next.done) this.#ended = true
      else {
        parts.push(next.value)
        have += next.value.length
      }
    }
    this.#buffer = parts.length === 1 ? rest : Buffer.concat(parts)
    this.#pos = 0
    return have >= size
  }

  peek(size: number): Buffer {
    return this.#buffer.subarray(this.#pos, this.#pos + size)
  }

  take(size: number): Buffer {
    const bytes = this.peek(size)
    this.#pos += size
    return bytes
  }

  /** Passes over bytes without keeping them; false when they do not all come. */
  async skip(size: number): Promise<boolean> {
    let left = size
    while (left > 0) {
      if (!(await this.has(1))) return false
      const step = Math.min(left, this.#buffer.length - this.#pos)
      this.#pos += step
      left -= step
    }
    return true
  }

  async close(): Promise<void> {
    if (!this.#ended) await this.#source.return?.()
  }
}

/**
 * The events behind a position, in order, across segments and histories. `wants` says whose bodies are needed: the
 * others are passed over. Ends quietly at an event that the open tail holds only in part.
 */
export async function* readEvents(
  archive: LogReader,
  first: Position,
  options: {
    readonly signal: AbortSignal
    readonly wants: (header: EventHeader) => boolean
    /** Give large row events in pieces. */
    readonly pieces?: boolean | undefined
  },
): AsyncGenerator<LogEvent, void, void> {
  const { signal } = options
  const from = parsePlace(first.at)
  for await (const segment of archive.segments(first, { signal })) {
    const content = await archive.read(segment.segment, { signal, history: segment.history })
    if (!content) throw new Fault('gap', `read log: segment ${segment.segment} is not there`)
    const isFirst = segment.history === first.history && fileNumber(segment.segment) === from.file
    yield* readSegment(segment, content, isFirst ? from : undefined, options)
  }
}

async function* readSegment(
  segment: LogSegment,
  content: AsyncIterable<Buffer>,
  from: Place | undefined,
  options: Parameters<typeof readEvents>[2],
): AsyncGenerator<LogEvent, void, void> {
  const pull = new Pull(content)
  const cut = () => {
    if (!segment.complete) return
    throw new Fault('corrupt', `read log segment ${segment.segment}: it ends inside an event`)
  }
  try {
    if (!(await pull.has(magic.length))) return cut()
    if (!pull.take(magic.length).equals(magic)) {
      throw new Fault('corrupt', `read log segment ${segment.segment}: it is no binary log`)
    }
    let offset = magic.length
    let format: FormatDescription | undefined
    while (await pull.has(1)) {
      options.signal.throwIfAborted()
      if (!(await pull.has(headerSize))) return cut()
      const header = decodeHeader(pull.peek(headerSize))
      if (header.sizeBytes > eventMaxBytes) {
        throw new Fault('corrupt', `read log segment ${segment.segment}: an event too large`)
      }
      const end = offset + header.sizeBytes
      const isNew = end > (from?.offset ?? 0)
      const wanted = header.type === eventType.formatDescription || (isNew && options.wants(header))
      let body: Buffer | undefined
      let large: LargeEvent | undefined
      const inPieces =
        options.pieces === true && isRows(header.type) && header.sizeBytes >= largeEventBytes
      if (wanted && inPieces) {
        if (!format) throw new Fault('corrupt', `read log segment ${segment.segment}: no format`)
        large = new LargeEvent(pull, header.sizeBytes, format.checksums, segment.segment)
      } else if (wanted) {
        if (!(await pull.has(header.sizeBytes))) return cut()
        const event = pull.take(header.sizeBytes)
        if (header.type === eventType.formatDescription) format = decodeFormat(event)
        body = bodyOf(event, format, segment)
      } else if (!(await pull.skip(header.sizeBytes))) {
        return cut()
      }
      if (!format) throw new Fault('corrupt', `read log segment ${segment.segment}: no format`)
      checkStamp(segment, format, from)
      offset = end
      const place = { file: fileNumber(segment.segment), offset, stamp: format.stamp }
      const { history, segment: name } = segment
      if (isNew || header.type === eventType.formatDescription) {
        yield { header, body, format, history, segment: name, end: place, large }
      }
      await large?.finish()
    }
  } finally {
    await pull.close()
  }
}

/** A file of that name which was made after a reset does not lead on from the base. */
function checkStamp(segment: LogSegment, format: FormatDescription, from: Place | undefined): void {
  if (from?.stamp === undefined || from.stamp === format.stamp) return
  throw new Fault(
    'gap',
    `read log segment ${segment.segment}: it is not the file that the base saw`,
  )
}

function bodyOf(event: Buffer, format: FormatDescription | undefined, segment: LogSegment): Buffer {
  if (!format?.checksums) return event.subarray(headerSize)
  if (!checksumHolds(event)) {
    throw new Fault('corrupt', `read log segment ${segment.segment}: an event's checksum is wrong`)
  }
  return event.subarray(headerSize, event.length - checksumSize)
}

/** An event with its size and checksum made new. */
export function encodeEvent(header: EventHeader, body: Buffer, checksums: boolean): Buffer {
  const tail = checksums ? checksumSize : 0
  const event = Buffer.allocUnsafe(headerSize + body.length + tail)
  event.writeUInt32LE(header.timestamp, 0)
  event[4] = header.type
  event.writeUInt32LE(header.serverId, 5)
  event.writeUInt32LE(event.length, 9)
  event.writeUInt32LE(header.nextPosition, 13)
  event.writeUInt16LE(header.flags, 17)
  body.copy(event, headerSize)
  if (checksums) {
    const end = event.length - checksumSize
    event.writeUInt32LE(crc32(event.subarray(0, end)), end)
  }
  return event
}
