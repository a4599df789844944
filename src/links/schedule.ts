import { assert } from '#base/faults'
import type { Chunk } from '#change/copy'

/** A piece of work for one of a copy's workers. Tables are indexes in the link's plan. */
export type Job =
  /** Cut these tables into chunks. */
  | { readonly kind: 'plan'; readonly tables: readonly number[] }
  | { readonly kind: 'load'; readonly chunk: Chunk }
  /** All rows of the table are there: make its indexes and keys. */
  | { readonly kind: 'make'; readonly table: number }

export type ScheduledTable = {
  readonly index: number
  readonly sizeBytes: number
  /** Chunks that are not loaded yet; undefined when the table has to be planned. */
  readonly chunks: readonly Chunk[] | undefined
  /** Its objects are made already. */
  readonly made: boolean
}

/** Small tables are planned many at a time: each time the plan is synced to the disk. */
const planMax = 64

/**
 * The order of a copy: big tables first, since the last chunk of a big one decides when all is done; a table's indexes as
 * soon as its rows are there, before more rows; small tables planned by the dozen.
 */
export class CopySchedule {
  readonly #toPlan: ScheduledTable[]
  readonly #toLoad: Chunk[] = []
  readonly #toMake: number[] = []
  /** Chunks of a table that are not loaded yet, those under way included. */
  readonly #missing = new Map<number, number>()
  readonly #small: number
  #busy = 0

  constructor(tables: readonly ScheduledTable[], options: { readonly smallBytes: number }) {
    this.#small = options.smallBytes
    const bySize = tables.toSorted((a, b) => b.sizeBytes - a.sizeBytes || a.index - b.index)
    this.#toPlan = bySize.filter((table) => table.chunks === undefined)
    for (const { index, chunks, made } of bySize) {
      if (chunks !== undefined && !made) this.#queue(index, chunks)
    }
  }

  /** The next job; undefined when there is none now: see `over`. Each must be ended by `planned`, `loaded` or `made`. */
  take(): Job | undefined {
    const job = this.#next()
    if (job) this.#busy += 1
    return job
  }

  /** Nothing is left to do, and nothing is under way. */
  get over(): boolean {
    const waiting = this.#toPlan.length + this.#toLoad.length + this.#toMake.length
    return waiting + this.#busy === 0
  }

  planned(tables: readonly { readonly index: number; readonly chunks: readonly Chunk[] }[]): void {
    this.#end()
    for (const { index, chunks } of tables) this.#queue(index, chunks)
  }

  /** True when that was the table's last one. */
  loaded(chunk: Chunk): boolean {
    this.#end()
    const missing = (this.#missing.get(chunk.table) ?? 0) - 1
    assert(missing >= 0, `chunk ${chunk.index} of table ${chunk.table} was to be loaded`)
    this.#missing.set(chunk.table, missing)
    if (missing === 0) this.#toMake.push(chunk.table)
    return missing === 0
  }

  made(): void {
    this.#end()
  }

  #next(): Job | undefined {
    const table = this.#toMake.shift()
    if (table !== undefined) return { kind: 'make', table }
    // A big table that is not planned yet goes before the chunks of smaller ones.
    const [first] = this.#toPlan
    const chunk = this.#toLoad[0]
    if (first && (chunk === undefined || first.sizeBytes > this.#small)) return this.#plan(first)
    if (chunk === undefined) return undefined
    this.#toLoad.shift()
    return { kind: 'load', chunk }
  }

  #plan(first: ScheduledTable): Job {
    const count = first.sizeBytes > this.#small ? 1 : Math.min(planMax, this.#toPlan.length)
    return { kind: 'plan', tables: this.#toPlan.splice(0, count).map((table) => table.index) }
  }

  #queue(index: number, chunks: readonly Chunk[]): void {
    this.#missing.set(index, chunks.length)
    if (chunks.length === 0) this.#toMake.push(index)
    for (const chunk of chunks) this.#toLoad.push(chunk)
  }

  #end(): void {
    assert(this.#busy > 0, 'a job that ends was taken')
    this.#busy -= 1
  }
}
