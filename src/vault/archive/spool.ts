import { type FileHandle, mkdir, open, readdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { Reader, Writer } from '#base/bytes'
import { Fault, fromSystem } from '#base/faults'
import { encodeText } from './names.ts'

/** What the spool knows of one object: enough to find its place in the chain. */
export type SpoolEntry = {
  readonly history: string
  readonly segment: string
  readonly sequenceFirst: number
  readonly sequenceLast: number
  readonly previous: string
  readonly link: string
}

type Writing = { readonly file: string; readonly handle: FileHandle; at: number }

type Placed = SpoolEntry & { readonly file: string; readonly at: number; readonly size: number }

const magic = 0x52444253
const headSize = 12
const entryBytesMax = 64 * 1024
const plainBytesMax = 64 * 1024 * 1024

/**
 * The packed bytes of parts whose segment is not folded yet, on the local disk, so that folding neither packs again nor
 * reads from the store. It is a cache: not synced, cut at the first bad byte when opened, and every entry is compared
 * with what was signed before it is used.
 */
export class Spool implements AsyncDisposable {
  readonly #folder: string
  readonly #placed = new Map<string, Placed>()
  #writing: Writing | undefined
  /** Additions are made one after the other: each needs the place behind the last. */
  #turn: Promise<void> = Promise.resolve()

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async open(folder: string): Promise<Spool> {
    const spool = new Spool(folder)
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      for (const name of await readdir(folder)) {
        if (name.endsWith('.spool')) await spool.#scan(path.join(folder, name))
      }
    } catch (error) {
      throw fromSystem(error, `open the spool ${folder}`)
    }
    return spool
  }

  /** Where a large fold may be put together. */
  get scratchFile(): string {
    return path.join(this.#folder, 'fold.tmp')
  }

  async add(entry: SpoolEntry, plain: Buffer): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const before = this.#turn
    this.#turn = promise
    await before
    try {
      await this.#add(entry, plain)
    } finally {
      resolve()
    }
  }

  async #add(entry: SpoolEntry, plain: Buffer): Promise<void> {
    const { history, segment, sequenceFirst, sequenceLast, previous, link } = entry
    const kept = { history, segment, sequenceFirst, sequenceLast, previous, link }
    const json = Buffer.from(JSON.stringify(kept))
    const head = new Writer(headSize).u32le(magic).u32le(json.length).u32le(plain.length).done()
    try {
      const writing = await this.#open(entry)
      const bytes = Buffer.concat([head, json, plain])
      const { bytesWritten } = await writing.handle.write(bytes, 0, bytes.length, writing.at)
      if (bytesWritten < bytes.length) {
        throw new Fault('full', `write the spool ${writing.file}: ${bytesWritten} bytes went in`)
      }
      const at = writing.at + head.length + json.length
      this.#placed.set(link, { ...kept, file: writing.file, at, size: plain.length })
      writing.at = at + plain.length
    } catch (error) {
      throw fromSystem(error, `write the spool ${this.#folder}`)
    }
  }

  /** The packed bytes of the object with this link; undefined when they are not here. */
  async read(link: string): Promise<Buffer | undefined> {
    const placed = this.#placed.get(link)
    if (!placed) return undefined
    await using handle = await open(placed.file, 'r')
    const bytes = Buffer.allocUnsafe(placed.size)
    const { bytesRead } = await handle.read(bytes, 0, placed.size, placed.at)
    return bytesRead === placed.size ? bytes : undefined
  }

  /** The segments that it holds anything of. */
  segments(): readonly { readonly history: string; readonly segment: string }[] {
    const byFile = new Map(Array.from(this.#placed.values(), (placed) => [placed.file, placed]))
    return Array.from(byFile.values(), ({ history, segment }) => ({ history, segment }))
  }

  /** Forgets a segment that is folded. */
  async drop(history: string, segment: string): Promise<void> {
    const file = this.#file(history, segment)
    for (const [link, placed] of this.#placed) if (placed.file === file) this.#placed.delete(link)
    if (this.#writing?.file === file) await this.#close()
    await rm(file, { force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }

  async #close(): Promise<void> {
    const writing = this.#writing
    this.#writing = undefined
    await writing?.handle.close()
  }

  async #open(entry: SpoolEntry): Promise<Writing> {
    const file = this.#file(entry.history, entry.segment)
    if (this.#writing?.file !== file) {
      await this.#close()
      const handle = await open(file, 'a+', 0o600)
      const { size } = await handle.stat()
      await handle.close()
      this.#writing = { file, handle: await open(file, 'r+'), at: size }
    }
    return this.#writing
  }

  #file(history: string, segment: string): string {
    return path.join(this.#folder, `${encodeText(history)}-${encodeText(segment)}.spool`)
  }

  async #scan(file: string): Promise<void> {
    await using handle = await open(file, 'r+')
    const { size } = await handle.stat()
    let at = 0
    while (at < size) {
      const entry = await readEntry(handle, at, size)
      if (!entry) break
      this.#placed.set(entry.link, { ...entry, file })
      at = entry.at + entry.size
    }
    if (at < size) await handle.truncate(at)
  }
}

async function readEntry(
  handle: FileHandle,
  at: number,
  fileSize: number,
): Promise<Omit<Placed, 'file'> | undefined> {
  const head = Buffer.alloc(headSize)
  if ((await handle.read(head, 0, headSize, at)).bytesRead < headSize) return undefined
  const reader = new Reader(head, 'a spool')
  const [found, jsonSize, size] = [reader.u32le(), reader.u32le(), reader.u32le()]
  const plainAt = at + headSize + jsonSize
  const fits = jsonSize <= entryBytesMax && size <= plainBytesMax && plainAt + size <= fileSize
  if (found !== magic || !fits) return undefined
  const json = Buffer.alloc(jsonSize)
  await handle.read(json, 0, jsonSize, at + headSize)
  try {
    return { ...(JSON.parse(json.toString()) as SpoolEntry), at: plainAt, size }
  } catch (error) {
    // Torn by a crash: from here on the spool holds nothing.
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
