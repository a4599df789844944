import { assert } from '#base/faults'
import type { Kernels } from './kernels.ts'
import { chunkBytesMax, chunkBytesMin, chunkMask } from './limits.ts'

/** Bytes that are read at a time: small enough that they are still in the processor's cache when they are cut. */
export const readBytes = 1024 * 1024

/** What a chunker needs of the kernels' memory. */
export const chunkerBytes = chunkBytesMax + readBytes

/**
 * Cuts one stream at a time into chunks whose borders depend on the content alone, so that what is inserted
 * moves no border behind the next one. Bytes are put straight into the kernels' memory, and stay there.
 */
export class Chunker {
  readonly #kernels: Kernels
  readonly #base: number
  #start = 0
  #end = 0
  /** Positions before this one are known to be no cuts. */
  #scanned = 0

  /** `base` is where the chunker's part of the kernels' memory begins. */
  constructor(kernels: Kernels, base: number) {
    this.#kernels = kernels
    this.#base = base
    this.reset()
  }

  reset(): void {
    this.#start = this.#base
    this.#end = this.#base
    this.#scanned = this.#base
  }

  /** The room where the next bytes of the stream go: at least one byte; all cuts must have been taken. */
  room(): Buffer {
    const { bytes } = this.#kernels
    const most = this.#base + chunkerBytes
    // Once half of what lies here is cut: the less memory is gone through, the more of it stays in the cache.
    if (this.#start - this.#base >= this.#end - this.#start || this.#end + readBytes > most) {
      bytes.copyWithin(this.#base, this.#start, this.#end)
      const moved = this.#start - this.#base
      this.#start -= moved
      this.#end -= moved
      this.#scanned -= moved
    }
    const end = Math.min(this.#end + readBytes, most)
    assert(end > this.#end, 'cuts are taken before more bytes come')
    return bytes.subarray(this.#end, end)
  }

  /** Bytes that came and are in no chunk yet. */
  get pendingBytes(): number {
    return this.#end - this.#start
  }

  /** Says how many bytes were put into the room. */
  filled(size: number): void {
    this.#end += size
  }

  /** The next chunk, a view that the next `room` may move; undefined when more bytes are needed or all is cut. */
  next(isLast: boolean): Buffer | undefined {
    const cut = this.#findCut(isLast)
    if (cut === undefined) return undefined
    const chunk = this.#kernels.bytes.subarray(this.#start, cut)
    this.#start = cut
    this.#scanned = cut
    return chunk
  }

  #findCut(isLast: boolean): number | undefined {
    const limit = Math.min(this.#end, this.#start + chunkBytesMax)
    const from = Math.max(this.#start + chunkBytesMin, this.#scanned)
    if (from <= limit) {
      const cut = this.#kernels.findCut(from, limit, chunkMask)
      if (cut !== 0) return cut
      this.#scanned = limit
    }
    if (limit === this.#start + chunkBytesMax) return limit
    return isLast && this.#end > this.#start ? this.#end : undefined
  }
}
