import assert from 'node:assert/strict'
import type { Commit, LogBlock, LogReader, LogSegment, LogSink, Position } from '#change'

type Kept = {
  readonly history: string
  readonly segment: string
  readonly first: string
  next: string
  complete: boolean
  readonly parts: Buffer[]
  size: number
}

/** A log archive in memory: refuses what does not continue, and reads back what it took. */
export class MemoryLog implements LogSink, LogReader {
  readonly commits: Commit[] = []
  readonly #segments: Kept[] = []
  #last: LogBlock | undefined

  async append(block: LogBlock): Promise<void> {
    const last = this.#last
    if (last && last.history === block.history) {
      assert.equal(block.first, last.next, `hole in ${block.history}`)
    }
    let kept = this.#find(block.history, block.segment)
    if (!kept) {
      const { history, segment, first, next } = block
      kept = { history, segment, first, next, complete: false, parts: [], size: 0 }
      this.#segments.push(kept)
    }
    assert.equal(block.offset, kept.size, `hole in ${block.segment}`)
    kept.parts.push(Buffer.from(block.bytes))
    kept.size += block.bytes.length
    kept.next = block.next
    kept.complete = block.closes
    this.commits.push(...block.commits)
    this.#last = block
  }

  durable(): Position | undefined {
    return this.#last && { history: this.#last.history, at: this.#last.next }
  }

  get names(): string[] {
    return this.#segments.map((kept) => kept.segment)
  }

  bytes(segment: string): Buffer {
    const kept = this.#segments.findLast((one) => one.segment === segment)
    assert.ok(kept, `no segment ${segment}`)
    return Buffer.concat(kept.parts)
  }

  async *segments(first: Position): AsyncGenerator<LogSegment, void, void> {
    const from = this.#segments.findIndex((kept) => kept.history === first.history)
    for (const kept of from < 0 ? [] : this.#segments.slice(from)) {
      if (kept.history === first.history && kept.next <= first.at && kept.parts.length > 0) continue
      const { history, segment, first: begin, next, size, complete } = kept
      yield { history, segment, first: begin, next, sizeBytes: size, complete }
    }
  }

  async read(
    segment: string,
    options: { readonly history?: string | undefined },
  ): Promise<AsyncIterable<Buffer> | undefined> {
    const kept = this.#segments.findLast(
      (one) =>
        one.segment === segment &&
        (options.history === undefined || options.history === one.history),
    )
    if (!kept) return undefined
    const parts = [...kept.parts]
    return (async function* () {
      yield* parts
    })()
  }

  #find(history: string, segment: string): Kept | undefined {
    return this.#segments.findLast((kept) => kept.history === history && kept.segment === segment)
  }
}
