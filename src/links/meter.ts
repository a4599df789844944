import type { Progress } from '#base/progress'
import type { Time } from '#base/time'
import type { Chunk, LoadedChunk, RowBlock } from '#change/copy'
import { formatName } from './selection.ts'
import type { RecordedTable, TableResult } from './state.ts'

/** What one chunk's way across came to. */
export interface ChunkCount {
  readonly rows: bigint
  through(blocks: AsyncIterable<RowBlock>): AsyncIterable<RowBlock>
  /** It is on the target. */
  end(): void
}

type TableCount = {
  rows: bigint
  bytes: number
  startedMs: number | undefined
  settledBytes: number
}

/** Counts what a copy carries: for the display, and per table for the result. */
export class CopyMeter {
  readonly #progress: Progress
  readonly #time: Time
  readonly #tables: readonly TableCount[]
  readonly #names: readonly string[]
  readonly #startedMs: number
  #rows = 0
  #chunks = 0

  constructor(progress: Progress, time: Time, tables: readonly RecordedTable[]) {
    this.#progress = progress
    this.#time = time
    this.#startedMs = time.monotonicMs()
    this.#names = tables.map(({ shape }) => formatName(shape.name))
    this.#tables = tables.map(() => ({ rows: 0n, bytes: 0, startedMs: undefined, settledBytes: 0 }))
    progress.totalBytes = tables.reduce((sum, { shape }) => sum + shape.sizeBytes, 0)
    progress.totalItems = tables.length
    progress.doneItems = tables.filter(({ result }) => result !== undefined).length
  }

  /** Chunks that came to the target so far. */
  get chunks(): number {
    return this.#chunks
  }

  /** What is on the target of a table when a pass begins. */
  settled(
    index: number,
    marks: readonly LoadedChunk[],
    chunks: readonly Chunk[] | undefined,
  ): void {
    const table = this.#table(index)
    const there = new Set(marks.map((mark) => mark.index))
    table.rows = marks.reduce((sum, mark) => sum + mark.rows, 0n)
    const sizes = chunks?.filter((chunk) => there.has(chunk.index)) ?? []
    this.#progress.doneBytes -= table.settledBytes
    table.settledBytes = sizes.reduce((sum, chunk) => sum + chunk.sizeBytes, 0)
    this.#progress.doneBytes += table.settledBytes
  }

  begin(chunk: Chunk): ChunkCount {
    const table = this.#table(chunk.table)
    table.startedMs ??= this.#time.monotonicMs()
    const pass = (block: RowBlock) => this.#pass(chunk.table, block)
    let rows = 0n
    return {
      get rows() {
        return rows
      },
      async *through(blocks) {
        for await (const block of blocks) {
          rows += BigInt(block.rows)
          pass(block)
          yield block
        }
      },
      end: () => {
        table.rows += rows
        table.settledBytes += chunk.sizeBytes
        this.#progress.doneBytes += chunk.sizeBytes
        this.#chunks += 1
      },
    }
  }

  finish(index: number): TableResult {
    const { rows, bytes, startedMs } = this.#table(index)
    const nowMs = this.#time.monotonicMs()
    this.#progress.doneItems += 1
    return { rows, bytes, tookMs: Math.round(nowMs - (startedMs ?? nowMs)) }
  }

  #pass(index: number, block: RowBlock): void {
    this.#table(index).bytes += block.bytes.length
    this.#rows += block.rows
    const seconds = Math.max(1, this.#time.monotonicMs() - this.#startedMs) / 1000
    const perSecond = Math.round(this.#rows / seconds)
    this.#progress.current = `${perSecond} rows/s, ${this.#names[index] ?? ''}`
  }

  #table(index: number): TableCount {
    const table = this.#tables[index]
    if (table) return table
    throw new Error(`broken invariant: table ${index} is in the plan`)
  }
}
