import { Fault } from '#base/faults'
import { Reader } from '#base/bytes'

const magic = 0xd3ae1f0d
const pageBytes = 8192
/** A relation file holds 131072 pages at most. */
const blocksMax = 131_072

/** The head of an incremental file: which pages of the whole file it holds, and how long that is. */
export type IncrementalHead = {
  readonly blocks: readonly number[]
  /** Pages from here on are not taken from the parent. */
  readonly truncatedAt: number
  /** Where the first page begins. */
  readonly sizeBytes: number
}

/** One page of the whole file. */
export type Extent = { readonly offset: number; readonly bytes: Buffer }

/** The whole file's path when this is an incremental one: `base/5/INCREMENTAL.1259` stands for `base/5/1259`. */
export function wholePath(path: string): string | undefined {
  const match = /^(.*\/|)INCREMENTAL\.([^/]+)$/.exec(path)
  return match ? `${match[1]}${match[2]}` : undefined
}

/**
 * Reads the head of an incremental file from its first bytes; undefined while more of them are needed.
 * Layout: magic, number of pages, truncation length, the page numbers, zeroes up to a page's border if pages follow.
 * src/backend/backup/basebackup_incremental.c
 */
export function decodeIncrementalHead(bytes: Buffer, path: string): IncrementalHead | undefined {
  if (bytes.length < 12) return undefined
  const reader = new Reader(bytes, path)
  const found = reader.u32le()
  const count = reader.u32le()
  const truncatedAt = reader.u32le()
  if (found !== magic || count > blocksMax || truncatedAt > blocksMax) {
    throw new Fault('corrupt', `read ${path}: no head of an incremental file`)
  }
  const plain = 12 + 4 * count
  const sizeBytes = count === 0 ? plain : Math.ceil(plain / pageBytes) * pageBytes
  if (bytes.length < sizeBytes) return undefined
  const blocks: number[] = []
  for (let left = count; left > 0; left -= 1) {
    const block = reader.u32le()
    const last = blocks.at(-1) ?? -1
    if (block <= last || block >= blocksMax) {
      throw new Fault('corrupt', `read ${path}: page ${block} behind page ${last}`)
    }
    blocks.push(block)
  }
  return { blocks, truncatedAt, sizeBytes }
}

/** How long the whole file is: as far as it was truncated, or up to the last page that came. */
export function wholeSizeBytes(head: IncrementalHead): number {
  return Math.max(head.truncatedAt, (head.blocks.at(-1) ?? -1) + 1) * pageBytes
}

/**
 * The changes of the whole file against its parent, ascending. Pages behind the truncation that did not come are zero,
 * whatever the parent holds there.
 */
export async function* toExtents(
  head: IncrementalHead,
  pages: AsyncIterable<Buffer>,
  path: string,
): AsyncGenerator<Extent, void, void> {
  const iterator = pages[Symbol.asyncIterator]()
  let rest: Buffer = Buffer.alloc(0)
  let zeroFrom = head.truncatedAt
  for (const block of head.blocks) {
    for (; zeroFrom < block; zeroFrom += 1) yield zeroPage(zeroFrom)
    zeroFrom = Math.max(zeroFrom, block + 1)
    const parts = [rest]
    let size = rest.length
    while (size < pageBytes) {
      const next = await iterator.next()
      if (next.done) throw new Fault('protocol', `read ${path}: cut off at page ${block}`)
      parts.push(next.value)
      size += next.value.length
    }
    const whole = parts.length === 1 ? rest : Buffer.concat(parts)
    yield { offset: block * pageBytes, bytes: whole.subarray(0, pageBytes) }
    rest = whole.subarray(pageBytes)
  }
  if (rest.length > 0 || !(await iterator.next()).done) {
    throw new Fault('protocol', `read ${path}: bytes behind the last page`)
  }
}

function zeroPage(block: number): Extent {
  return { offset: block * pageBytes, bytes: Buffer.alloc(pageBytes) }
}
