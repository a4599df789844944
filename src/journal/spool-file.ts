import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { Fault, fromSystem } from '#base/faults'
import type { LogBlock, Position } from '#change'
import { corruptRecord, decodeBody, decodeHead, encodeRecord, recordHeadBytes } from './record.ts'

/** What is known of the commits up to a place: the last one, and the newest stamp, which need not be the same one's. */
type Commits = { readonly last: Position; readonly newestUs: bigint }

/** A place to start reading from without scanning the whole file. */
type Mark = {
  readonly offset: number
  readonly history: string
  readonly first: string
  /** Of the file's commits before it; undefined when there are none. */
  readonly before: Commits | undefined
}

const markEveryBytes = 256 * 1024
/** Blocks at the end that are kept in memory: a reader that keeps up need not read the file. */
const tailBytesMax = 4 * 1024 * 1024
// Each write is durable when it returns: one call in place of a write and a sync.
const openFlags = constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | constants.O_DSYNC

/** One file of the journal: records one behind the other, appended, later deleted as a whole. */
export class SpoolFile {
  readonly path: string
  readonly number: number
  readonly #handle: FileHandle
  readonly #marks: Mark[] = []
  #size = 0
  #last: LogBlock | undefined
  #commits: Commits | undefined
  /** By where their records begin, oldest first. */
  readonly #tail = new Map<number, { readonly block: LogBlock; readonly end: number }>()
  #tailBytes = 0

  private constructor(path: string, number: number, handle: FileHandle) {
    this.path = path
    this.number = number
    this.#handle = handle
  }

  static async open(path: string, number: number): Promise<SpoolFile> {
    const handle = await open(path, openFlags, 0o600).catch((error: unknown) => {
      throw fromSystem(error, `open journal ${path}`)
    })
    return new SpoolFile(path, number, handle)
  }

  /** Bytes of whole, synced records. */
  get sizeBytes(): number {
    return this.#size
  }

  /** The last block, without its bytes' meaning: for where the file ends. */
  get last(): LogBlock | undefined {
    return this.#last
  }

  /** Reads all records once, after a start; with `repair`, cuts off what a crash left behind the last whole one. */
  async recover(repair: boolean): Promise<void> {
    const { size } = await this.#handle.stat()
    for (;;) {
      const found = await this.#readAt(this.#size, size)
      if (!found) break
      this.#note(found.block, found.end - this.#size)
    }
    if (this.#size === size) return
    if (!repair) throw corruptRecord(this.path, this.#size)
    await this.#cut()
  }

  /** Appends a block and syncs it; on failure the file is as before. */
  async append(block: LogBlock): Promise<void> {
    const parts = encodeRecord(block)
    const size = parts.reduce((sum, part) => sum + part.length, 0)
    try {
      let written = 0
      const { bytesWritten } = await this.#handle.writev([...parts])
      written = bytesWritten
      if (written !== size) throw new Fault('full', `append to journal ${this.path}: disk full`)
    } catch (error) {
      await this.#cut()
      throw fromSystem(error, `append to journal ${this.path}`)
    }
    this.#keep(block, this.#size + size)
    this.#note({ ...block, bytes: emptyBytes }, size)
  }

  /** The record at `offset`; undefined at the end of what is synced. */
  async read(offset: number): Promise<{ block: LogBlock; end: number } | undefined> {
    if (offset >= this.#size) return undefined
    const kept = this.#tail.get(offset)
    if (kept) return kept
    const found = await this.#readAt(offset, this.#size)
    if (!found) throw corruptRecord(this.path, offset)
    return found
  }

  /** Where to start reading for what lies behind a position of a history: at or before it. */
  offsetFor(history: string, at: string): number {
    const mark = this.#marks.findLast((one) => one.history === history && one.first <= at)
    return mark?.offset ?? 0
  }

  /** Of all its commits; undefined when it has none. */
  get commits(): Commits | undefined {
    return this.#commits
  }

  /**
   * The last commit before the first one that is stamped later than a moment. `none` when that very commit is the file's
   * first, undefined when no commit of the file is stamped later.
   */
  async commitAt(timeUs: bigint): Promise<Position | 'none' | undefined> {
    if (!this.#commits || this.#commits.newestUs <= timeUs) return undefined
    const mark = this.#marks.findLast(({ before }) => !before || before.newestUs <= timeUs)
    let last = mark?.before?.last
    for (let offset = mark?.offset ?? 0; ; ) {
      const found = await this.read(offset)
      if (!found) throw corruptRecord(this.path, offset)
      const { history, commits } = found.block
      for (const commit of commits) {
        if (commit.timeUs > timeUs) return last ?? 'none'
        last = { history, at: commit.at }
      }
      offset = found.end
    }
  }

  get first(): Mark | undefined {
    return this.#marks[0]
  }

  /** Lets go of what is kept in memory: this is no longer the file that is appended to. */
  forget(): void {
    this.#tail.clear()
    this.#tailBytes = 0
  }

  async close(): Promise<void> {
    this.forget()
    await this.#handle.close()
  }

  async #readAt(
    offset: number,
    sizeMax: number,
  ): Promise<{ block: LogBlock; end: number } | undefined> {
    const head = decodeHead(await this.#readBytes(offset, recordHeadBytes))
    if (!head) return undefined
    const bodyBytes = head.factsBytes + head.blockBytes
    const end = offset + recordHeadBytes + bodyBytes
    if (end > sizeMax) return undefined
    const block = decodeBody(head, await this.#readBytes(offset + recordHeadBytes, bodyBytes))
    return block && { block, end }
  }

  async #readBytes(offset: number, size: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(size)
    let filled = 0
    while (filled < size) {
      const { bytesRead } = await this.#handle.read(bytes, filled, size - filled, offset + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return bytes.subarray(0, filled)
  }

  #keep(block: LogBlock, end: number): void {
    const size = block.bytes.length
    if (size > tailBytesMax) return
    // A small view of a large buffer is copied: it would pin more than itself.
    const { bytes } = block
    const pins = bytes.buffer.byteLength > 2 * size
    this.#tail.set(this.#size, {
      block: pins ? { ...block, bytes: Buffer.from(bytes) } : block,
      end,
    })
    this.#tailBytes += size + blockOverhead
    for (const [at, { block: oldest }] of this.#tail) {
      if (this.#tailBytes <= tailBytesMax) break
      this.#tail.delete(at)
      this.#tailBytes -= oldest.bytes.length + blockOverhead
    }
  }

  #note(block: LogBlock, size: number): void {
    const lastMark = this.#marks.at(-1)
    if (
      !lastMark ||
      lastMark.history !== block.history ||
      this.#size - lastMark.offset >= markEveryBytes
    ) {
      const { history, first } = block
      this.#marks.push({ offset: this.#size, history, first, before: this.#commits })
    }
    for (const { at, timeUs } of block.commits) {
      const newestUs = this.#commits?.newestUs ?? timeUs
      const last = { history: block.history, at }
      this.#commits = { last, newestUs: timeUs > newestUs ? timeUs : newestUs }
    }
    this.#size += size
    this.#last = { ...block, bytes: emptyBytes }
  }

  async #cut(): Promise<void> {
    await this.#handle.truncate(this.#size)
    await this.#handle.datasync()
  }
}

/** What a block takes in memory beside its bytes, commits and all: counted, so that many small ones stay bounded. */
const blockOverhead = 1024
const emptyBytes = Buffer.alloc(0)
