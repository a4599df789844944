import { assert, Fault } from '#base/faults'
import { blockBytes } from '#vault/repository/limits'

export type Extent = { readonly offset: number; readonly bytes: Buffer }

/** A stretch of the parent's file: one stored chunk, or zeroes behind its end when it has no id. */
export type Chunk = {
  readonly start: number
  readonly end: number
  readonly id: string | undefined
  /** The file goes on behind it in the same block: joined with what follows, so that blocks stay whole. */
  readonly isShort?: boolean | undefined
}

/** A stretch of the new file: a chunk of the parent as it is, or bytes to be cut anew, consumed before the next piece. */
export type Piece =
  | { readonly kind: 'kept'; readonly id: string }
  | { readonly kind: 'changed'; readonly offset: number; readonly bytes: AsyncIterable<Buffer> }

/**
 * The chunks that a file of `sizeBytes` starts from: the parent's, those behind the new end left out, the one across it
 * cut (and so no longer the stored one), and zeroes up to the new end.
 */
export function layChunks(
  parent: readonly { readonly id: string; readonly sizeBytes: number }[],
  sizeBytes: number,
): Chunk[] {
  const chunks: Chunk[] = []
  let at = 0
  for (const [index, { id, sizeBytes: size }] of parent.entries()) {
    if (at >= sizeBytes) break
    const end = at + size
    const isShort = index === parent.length - 1 && end < sizeBytes && end % blockBytes !== 0
    chunks.push({ start: at, end, id, isShort })
    at = end
  }
  while (at < sizeBytes) {
    const end = Math.min(at - (at % blockBytes) + blockBytes, sizeBytes)
    chunks.push({ start: at, end, id: undefined })
    at = end
  }
  return chunks
}

/**
 * Splits a patched file into kept chunks and changed runs. Only the chunks that an extent touches, or that the new end
 * cuts, are loaded; neighbours among them make one run. Memory: one chunk and one extent at a time.
 */
export async function* patchFile(
  chunks: readonly Chunk[],
  sizeBytes: number,
  extents: AsyncIterable<Extent>,
  load: (id: string) => Promise<Buffer>,
): AsyncGenerator<Piece, void, void> {
  const feed = new ExtentFeed(extents)
  let index = 0
  const isChanged = async (chunk: Chunk) =>
    chunk.id === undefined ||
    chunk.isShort === true ||
    chunk.end > sizeBytes ||
    (await feed.startsBefore(chunk.end))
  async function* run(): AsyncGenerator<Buffer, void, void> {
    for (let chunk = chunks[index]; chunk && (await isChanged(chunk)); chunk = chunks[++index]) {
      yield await patchChunk(chunk, sizeBytes, feed, load)
    }
  }
  for (let chunk = chunks[index]; chunk; chunk = chunks[index]) {
    if (await isChanged(chunk)) {
      const before: number = index
      yield { kind: 'changed', offset: chunk.start, bytes: run() }
      assert(index > before, 'a changed run is consumed before the next piece is asked for')
    } else {
      assert(chunk.id !== undefined, 'a kept chunk is a stored one')
      yield { kind: 'kept', id: chunk.id }
      index += 1
    }
  }
  if (await feed.startsBefore(Number.MAX_SAFE_INTEGER)) {
    throw new Fault('protocol', `patch a file: an extent lies behind its end at ${sizeBytes}`)
  }
}

async function patchChunk(
  chunk: Chunk,
  sizeBytes: number,
  feed: ExtentFeed,
  load: (id: string) => Promise<Buffer>,
): Promise<Buffer> {
  const size = Math.min(chunk.end, sizeBytes) - chunk.start
  const bytes = Buffer.alloc(size)
  if (chunk.id !== undefined) {
    const stored = await load(chunk.id)
    assert(
      stored.length === chunk.end - chunk.start,
      'a stored chunk has the size that the index tells',
    )
    stored.copy(bytes)
  }
  await feed.apply(bytes, chunk.start)
  return bytes
}

/** Extents in order, the next one at hand; one that spans a chunk's border is taken in two steps. */
class ExtentFeed {
  readonly #extents: AsyncIterator<Extent>
  #next: Extent | undefined
  #asked = false
  #end = 0

  constructor(extents: AsyncIterable<Extent>) {
    this.#extents = extents[Symbol.asyncIterator]()
  }

  async startsBefore(offset: number): Promise<boolean> {
    const next = await this.#peek()
    return next !== undefined && next.offset < offset
  }

  /** Copies all extents that lie in `[start, start + bytes.length)` into it. */
  async apply(bytes: Buffer, start: number): Promise<void> {
    const end = start + bytes.length
    for (let next = await this.#peek(); next && next.offset < end; next = await this.#peek()) {
      const taken = Math.min(next.bytes.length, end - next.offset)
      next.bytes.copy(bytes, next.offset - start, 0, taken)
      this.#next =
        taken < next.bytes.length
          ? { offset: next.offset + taken, bytes: next.bytes.subarray(taken) }
          : undefined
    }
  }

  async #peek(): Promise<Extent | undefined> {
    while (this.#next === undefined && !this.#asked) {
      const { value, done } = await this.#extents.next()
      if (done) {
        this.#asked = true
      } else if (value.offset < this.#end) {
        throw new Fault(
          'protocol',
          `patch a file: extent at ${value.offset} overlaps the one before it`,
        )
      } else if (value.bytes.length > 0) {
        this.#end = value.offset + value.bytes.length
        this.#next = value
      }
    }
    return this.#next
  }
}
