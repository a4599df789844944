import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import { decodeQuery, eventType, type QueryEvent } from './binlog/event.ts'

const fileMaxBytes = 256 * 1024 * 1024

/** A LOAD DATA statement of the log, to be run with the bytes that its file had on the source. */
export type LoadedFile = {
  readonly query: QueryEvent
  readonly sql: string
  readonly content: AsyncIterable<Buffer>
}

/** The files of LOAD DATA statements, whose bytes stand in the log before the statements themselves. */
export class LoadedFiles {
  readonly #files = new Map<number, { parts: Buffer[]; size: number }>()

  collect(body: Buffer): void {
    const id = body.readUInt32LE(0)
    const file = this.#files.get(id) ?? { parts: [], size: 0 }
    file.parts.push(body.subarray(4))
    file.size += body.length - 4
    if (file.size > fileMaxBytes) {
      throw new Fault('unsupported', `replay LOAD DATA: its file exceeds ${fileMaxBytes} bytes`)
    }
    this.#files.set(id, file)
  }

  /** Reads the event that executes it: the name of the source's file in the statement is replaced. */
  take(body: Buffer): LoadedFile {
    const reader = new Reader(body, 'load event', 13)
    const id = reader.u32le()
    const nameStart = reader.u32le()
    const nameEnd = reader.u32le()
    const duplicates = reader.u8()
    const query = decodeQuery(Buffer.concat([body.subarray(0, 13), reader.rest()]), eventType.query)
    const file = this.#files.get(id)
    this.#files.delete(id)
    if (!file) throw new Fault('gap', 'replay LOAD DATA: its file did not come before it')
    const how = duplicates === 2 ? 'REPLACE ' : duplicates === 1 ? 'IGNORE ' : ''
    const sql = Buffer.concat([
      query.sql.subarray(0, nameStart),
      Buffer.from(` LOCAL INFILE 'data' ${how}INTO`),
      query.sql.subarray(nameEnd),
    ])
    return { query, sql: sql.toString('latin1'), content: each(file.parts) }
  }
}

async function* each(parts: readonly Buffer[]): AsyncGenerator<Buffer, void, void> {
  yield* parts
}
