import { Fault } from '#base/faults'
import type { LogBlock } from '#change'
import { segmentName, toAt } from './lsn.ts'
import { WalWalker } from './wal-records.kernel.ts'

/** Turns a byte stream that starts at a segment's border into blocks that begin behind `after`. */
export class BlockCutter {
  readonly #history: string
  readonly #timeline: number
  readonly #segmentBytes: number
  readonly #walker: WalWalker
  #skipTo: bigint
  lsn: bigint

  constructor(
    history: string,
    after: { readonly timeline: number; readonly lsn: bigint },
    start: bigint,
    segmentBytes: number,
  ) {
    this.#history = history
    this.#timeline = after.timeline
    this.#segmentBytes = segmentBytes
    this.#walker = new WalWalker(start, segmentBytes)
    this.#skipTo = after.lsn
    this.lsn = start
  }

  *cut(first: bigint, bytes: Buffer): Generator<LogBlock, void, void> {
    if (first !== this.lsn) {
      throw new Fault('protocol', `read the log: ${toAt(first)} came, not ${toAt(this.lsn)}`)
    }
    let at = 0
    while (at < bytes.length) {
      const inSegment = Number(this.lsn % BigInt(this.#segmentBytes))
      const size = Math.min(bytes.length - at, this.#segmentBytes - inSegment)
      const block = this.#block(bytes.subarray(at, at + size), inSegment)
      at += size
      if (block) yield block
    }
  }

  #block(piece: Buffer, inSegment: number): LogBlock | undefined {
    const begin = this.lsn
    const end = begin + BigInt(piece.length)
    const marks = this.#walker.feed(piece)
    this.lsn = end
    if (end <= this.#skipTo) return undefined
    const skip = begin < this.#skipTo ? Number(this.#skipTo - begin) : 0
    const commits = marks
      .filter((mark) => mark.kind === 'commit' && mark.end > this.#skipTo)
      .map((mark) => ({ at: toAt(mark.end), timeUs: mark.timeUs, id: mark.id }))
    return {
      kind: 'block',
      history: this.#history,
      segment: segmentName(this.#timeline, begin, this.#segmentBytes),
      offset: inSegment + skip,
      bytes: skip === 0 ? piece : piece.subarray(skip),
      first: toAt(begin + BigInt(skip)),
      next: toAt(end),
      commits,
      closes: inSegment + piece.length === this.#segmentBytes,
    }
  }
}
