import { Fault } from '#base/faults'
import type { Commit, LogBlock } from '#change'
import { CommitFinder, wantsBody } from './binlog/commits.ts'
import {
  decodeGtidList,
  decodePreviousGtids,
  decodeRotate,
  eventType,
  magic,
} from './binlog/event.ts'
import type { EndedEvent } from './dump.ts'
import { createGtidSet, type GtidSet } from './gtid.ts'
import { comparePlaces, fileNumber, formatPlace, type Place } from './position.ts'

/** A block is handed over at this size at the latest. */
const blockMaxBytes = 1024 * 1024

/** Where the reading stands: all that a reconnection needs. */
export type Cursor = {
  readonly history: string
  /** The native name of the file; numbers alone make positions. */
  readonly name: string
  readonly place: Place
}

/** Gathers the bytes of files into blocks and follows positions and commits. Bytes before the cursor are read over. */
export class FileReader {
  readonly #family: 'mysql' | 'mariadb'
  readonly #history: string
  /** From here on bytes are new. */
  readonly #wanted: Place
  #commitFinder = new CommitFinder()
  #name: string
  #file: number
  #stamp: number | undefined
  /** Where the next event's bytes go in the file. */
  #offset = 0
  #parts: Buffer[] = []
  #partsBytes = 0
  #partsOffset = 0
  #commits: Commit[] = []
  /** The file that follows, once the present one was handed over to its end. */
  #next: string | undefined
  gtids: GtidSet

  constructor(cursor: Cursor, family: 'mysql' | 'mariadb') {
    this.#family = family
    this.#history = cursor.history
    this.#wanted = cursor.place
    this.#name = cursor.name
    this.#file = cursor.place.file
    this.gtids = createGtidSet(family)
  }

  /** What was handed over ends here. */
  get cursor(): Cursor {
    if (this.#next !== undefined) {
      const place = { file: fileNumber(this.#next), offset: 0 }
      return { history: this.#history, name: this.#next, place }
    }
    const offset = this.#parts.length > 0 ? this.#partsOffset : this.#offset
    const own = { file: this.#file, offset, stamp: this.#stamp }
    const place = comparePlaces(own, this.#wanted) < 0 ? this.#wanted : own
    return { history: this.#history, name: this.#name, place }
  }

  /** The bytes before the cursor were read again, and are of the file of before: nothing is said of its end until then. */
  get caughtUp(): boolean {
    const read = { file: this.#file, offset: this.#offset }
    return this.#parts.length === 0 && comparePlaces(read, this.#wanted) >= 0
  }

  /** The server names the file that follows: what came of the one before is complete. */
  begin(name: string): LogBlock | undefined {
    const closing = this.#offset > 0 && name !== this.#name && this.#next === undefined
    const block = closing ? this.#block(name) : undefined
    if (this.#offset === 0 || name !== this.#name) this.#enter(name)
    return block
  }

  #enter(name: string): void {
    this.#name = name
    this.#file = fileNumber(name)
    this.#stamp = undefined
    this.#offset = 0
    this.#next = undefined
    this.#commitFinder.reset()
    this.#add(magic)
  }

  take(bytes: Buffer, ended: EndedEvent | undefined): LogBlock | undefined {
    if (ended?.header.type === eventType.formatDescription) this.#checkStamp(ended)
    this.#add(bytes)
    if (ended) {
      this.#checkPosition(ended)
      this.#follow(ended)
      if (ended.header.type === eventType.rotate && ended.body) {
        return this.#block(decodeRotate(ended.body).name)
      }
    }
    return this.#partsBytes >= blockMaxBytes ? this.#block(undefined) : undefined
  }

  flush(): LogBlock | undefined {
    return this.#parts.length === 0 ? undefined : this.#block(undefined)
  }

  /** Cuts off what is before the wanted place. */
  #add(bytes: Buffer): void {
    const start = this.#offset
    this.#offset += bytes.length
    const before = this.#file === this.#wanted.file ? this.#wanted.offset - start : 0
    if (before >= bytes.length) return
    const wanted = before > 0 ? bytes.subarray(before) : bytes
    if (this.#parts.length === 0) this.#partsOffset = start + Math.max(0, before)
    this.#parts.push(wanted)
    this.#partsBytes += wanted.length
  }

  #checkStamp(ended: EndedEvent): void {
    const { stamp } = ended.format
    this.#stamp ??= stamp
    const { stamp: wanted, file } = this.#wanted
    if (file !== this.#file || wanted === undefined || wanted === stamp) return
    throw new Fault(
      'source-changed',
      `read binary log ${this.#name}: it is not the file of before`,
      {
        hint: 'The binary logs were reset: a new base backup begins their next history.',
      },
    )
  }

  #checkPosition({ header }: EndedEvent): void {
    // Newer MariaDB (11.4 on) leaves it out of all events of a transaction but the last.
    if (header.nextPosition === 0 || header.nextPosition === this.#offset % 2 ** 32) return
    throw new Fault(
      'protocol',
      `read binary log ${this.#name}: an event ends at ${this.#offset} and says ${header.nextPosition}`,
    )
  }

  #follow({ header, body }: EndedEvent): void {
    if (body && header.type === eventType.previousGtids) {
      this.gtids = createGtidSet(this.#family, decodePreviousGtids(body))
    } else if (body && header.type === eventType.gtidList) {
      this.gtids = createGtidSet(this.#family, decodeGtidList(body))
    }
    const wanted = body && wantsBody(header.type) ? body : undefined
    const commit = this.#commitFinder.take(header, wanted)
    if (!commit) return
    if (commit.id !== '') this.gtids.add(commit.id)
    const place = { file: this.#file, offset: this.#offset, stamp: this.#stamp }
    if (comparePlaces(place, this.#wanted) <= 0) return
    this.#commits.push({ at: formatPlace(place), timeUs: commit.timeUs, id: commit.id })
  }

  /** `nextFile` when the file is complete with this block. */
  #block(nextFile: string | undefined): LogBlock {
    const bytes = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts)
    const end = { file: this.#file, offset: this.#offset, stamp: this.#stamp }
    const offset = this.#parts.length > 0 ? this.#partsOffset : this.#offset
    const block: LogBlock = {
      kind: 'block',
      history: this.#history,
      segment: this.#name,
      offset,
      bytes: bytes ?? Buffer.alloc(0),
      first: formatPlace({ ...end, offset }),
      next: formatPlace(nextFile === undefined ? end : { file: fileNumber(nextFile), offset: 0 }),
      commits: this.#commits,
      closes: nextFile !== undefined,
    }
    this.#parts = []
    this.#partsBytes = 0
    this.#commits = []
    this.#next = nextFile
    return block
  }
}
