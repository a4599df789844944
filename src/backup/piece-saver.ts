import type { Progress } from '#base/progress'
import type { BlobSaver } from '#vault'

type Saved = { readonly blobs: readonly string[]; readonly sizeBytes: bigint }

/** A stream is handed to the workers in pieces of this size, so that several share one file. */
const pieceBytesMax = 16 * 2 ** 20
/** What may wait for the workers, over all files. */
const pendingBytesMax = 32 * 2 ** 20
const pendingCountMax = 128

/**
 * Saves streams that come one behind the other, as a database sends its files: a stream counts as taken when it was read,
 * and the next may begin while workers still cut and pack the last. Pieces are cut at fixed offsets, so that a file whose
 * pages change in place keeps its other chunks.
 */
export class PieceSaver {
  readonly #saver: BlobSaver
  readonly #progress: Progress
  readonly #pending = new Set<Promise<unknown>>()
  #pendingBytes = 0
  #failure: { readonly error: unknown } | undefined

  constructor(saver: BlobSaver, progress: Progress) {
    this.#saver = saver
    this.#progress = progress
  }

  /** Reads the content to its end; `done` is called when all of it is stored. Throws what an earlier stream failed with. */
  async take(content: AsyncIterable<Buffer>, done: (saved: Saved) => void): Promise<void> {
    const parts: Promise<Saved>[] = []
    let piece: Buffer[] = []
    let sizeBytes = 0
    for await (const bytes of content) {
      for (let at = 0; at < bytes.length; ) {
        // Exactly at the same offsets each time, however the stream was cut: else nothing would be found again.
        const part = bytes.subarray(at, at + pieceBytesMax - sizeBytes)
        // Its buffer may be used again by whoever reads the socket.
        piece.push(Buffer.from(part))
        sizeBytes += part.length
        at += part.length
        if (sizeBytes < pieceBytesMax) continue
        parts.push((await this.#begin(piece, sizeBytes)).saved)
        piece = []
        sizeBytes = 0
      }
    }
    if (sizeBytes > 0 || parts.length === 0) {
      parts.push((await this.#begin(piece, sizeBytes)).saved)
    }
    const finish = async () => done(join(await Promise.all(parts)))
    this.#own(finish())
  }

  /** Waits until everything that was taken is stored. */
  async idle(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending)
    this.#throwIfFailed()
  }

  async #begin(piece: readonly Buffer[], sizeBytes: number): Promise<{ saved: Promise<Saved> }> {
    while (
      this.#pending.size >= pendingCountMax ||
      (this.#pendingBytes > 0 && this.#pendingBytes + sizeBytes > pendingBytesMax)
    ) {
      await Promise.race(this.#pending)
    }
    this.#throwIfFailed()
    this.#pendingBytes += sizeBytes
    const read = async function* () {
      yield* piece
    }
    const saved = this.#saver.saveContent({ kind: 'stream', read }, this.#progress).finally(() => {
      this.#pendingBytes -= sizeBytes
    })
    this.#own(saved)
    return { saved }
  }

  #own(work: Promise<unknown>): void {
    const owned: Promise<unknown> = work
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#pending.delete(owned))
    this.#pending.add(owned)
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure.error
  }
}

function join(parts: readonly Saved[]): Saved {
  return {
    blobs: parts.flatMap((part) => part.blobs),
    sizeBytes: parts.reduce((sum, part) => sum + part.sizeBytes, 0n),
  }
}
