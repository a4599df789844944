import { Fault } from '#base/faults'
import { Queue } from '#base/queue'
import type { BaseEntry } from '#engines'
import { decodeIncrementalHead, type IncrementalHead } from './incremental.ts'
import { type Crc32c, formatCrc32c } from './page-sums.ts'
import { type TarEntry, TarReader } from './tar.ts'

/** What waits of one file for the sink. */
const fileQueueBytes = 4 << 20
/** Files that are rewritten here are small. */
const smallFileBytesMax = 1 << 20

/** What came of a file: compared with the manifest. */
export type Taken = { readonly sizeBytes: number; readonly sum: string }

/** A tar archive of the backup, and where its paths belong. */
export class ArchiveReader extends TarReader {
  readonly #prefix: string

  constructor(oid: string | undefined) {
    super(
      oid === undefined ? 'the archive of the data directory' : `the archive of tablespace ${oid}`,
    )
    this.#prefix = oid === undefined ? '' : `pg_tblspc/${oid}`
  }

  rooted(path: string): string {
    const clean = path === '.' ? '' : path
    return this.#prefix === '' ? clean : clean === '' ? this.#prefix : `${this.#prefix}/${clean}`
  }
}

/** A file that is rewritten on its way from the archive to the sink, summed as it passes. */
export class OpenFile {
  readonly path: string
  readonly entry: TarEntry
  readonly queue = new Queue<Buffer>(fileQueueBytes)
  readonly #crc: Crc32c
  #sum = 0
  #sizeBytes = 0

  constructor(path: string, entry: TarEntry, crc: Crc32c) {
    this.path = path
    this.entry = entry
    this.#crc = crc
  }

  take(bytes: Buffer): void {
    this.#sizeBytes += bytes.length
    this.#sum = this.#crc.extend(this.#sum, bytes)
  }

  get taken(): Taken {
    return { sizeBytes: this.#sizeBytes, sum: formatCrc32c(this.#sum) }
  }
}

export async function readHead(
  open: OpenFile,
): Promise<{ head: IncrementalHead; rest: AsyncIterable<Buffer> }> {
  const iterator = open.queue[Symbol.asyncIterator]()
  let bytes: Buffer = Buffer.alloc(0)
  for (;;) {
    const head = decodeIncrementalHead(bytes, open.path)
    if (head) return { head, rest: behind(bytes.subarray(head.sizeBytes), iterator) }
    const next = await iterator.next()
    if (next.done) throw new Fault('protocol', `read ${open.path}: cut off in its head`)
    bytes = Buffer.concat([bytes, next.value])
  }
}

async function* behind(
  first: Buffer,
  iterator: AsyncIterator<Buffer>,
): AsyncGenerator<Buffer, void, void> {
  if (first.length > 0) yield first
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value
}

export async function collect(content: AsyncIterable<Buffer>, path: string): Promise<Buffer> {
  const parts: Buffer[] = []
  let size = 0
  for await (const bytes of content) {
    size += bytes.length
    if (size > smallFileBytesMax) throw new Fault('protocol', `read ${path}: ${size} bytes`)
    parts.push(bytes)
  }
  return Buffer.concat(parts)
}

export async function* once(bytes: Buffer): AsyncGenerator<Buffer, void, void> {
  yield bytes
}

export function attributes(entry: TarEntry) {
  const timeNs = BigInt(entry.mtimeSeconds) * 1_000_000_000n
  return {
    mode: entry.mode,
    mtimeNs: timeNs,
    atimeNs: timeNs,
    ctimeNs: timeNs,
    uid: entry.uid,
    gid: entry.gid,
    inode: 0n,
    device: 0n,
    links: 1,
    xattrs: [],
  }
}

export function fileEntry(entry: TarEntry, sizeBytes: number): BaseEntry<'file'> {
  return { ...attributes(entry), kind: 'file', sizeBytes: BigInt(sizeBytes) }
}

export function manifestEntry(sizeBytes: number, timeNs: bigint): BaseEntry<'file'> {
  const times = { mtimeNs: timeNs, atimeNs: timeNs, ctimeNs: timeNs }
  const nobody = { uid: 0, gid: 0, inode: 0n, device: 0n, links: 1, xattrs: [] }
  return { ...nobody, ...times, mode: 0o600, kind: 'file', sizeBytes: BigInt(sizeBytes) }
}
