import type { Digester, DigestTable, KeyDigest, KeyRange } from '#change/digest'
import { examine, type KeyedDifference, keyText } from './differences.ts'
import { cutSlices, isChosen, rowsOfSlice } from './sample.ts'
import { settle } from './settle.ts'
import type { TableResult } from './table-result.ts'
import { both, differencesMax, type Work } from './work.ts'

/** A chunk's rows: as many as the servers digest in a moment, found out on the way. */
const chunkRowsFirst = 1000
const chunkRowsMax = 20_000
const chunkRowsMin = 100
const momentMinMs = 100
const momentMaxMs = 1000
/** A range of no more rows is listed, with a digest of each. */
const leafRowsMax = 2000
/** Into so many ranges one is cut that differs. */
const cutsMax = 16
/** Differences that wait to be looked at again; at more than these they are looked at before the next. */
const pendingMax = 5000

/** The two sides keep the key in orders that differ: ranges mean nothing. */
export class Disordered extends Error {
  override readonly name = 'Disordered'
}

/** What both sides come to in a range. */
type Sums = {
  readonly range: KeyRange
  readonly source: bigint
  readonly target: bigint
  /** Of the side that has more. */
  readonly rows: bigint
  readonly equal: boolean
}

/** Compares a table by ranges of its key. */
export class Ranges {
  readonly result: TableResult
  readonly #work: Work
  #chunkRows: number
  readonly #leafRows: number
  #pending: KeyedDifference[] = []
  /** Those that are looked at again now. */
  #settling = 0
  #ended = false

  constructor(work: Work, result: TableResult) {
    this.#work = work
    this.result = result
    this.#chunkRows = work.chunkRows ?? chunkRowsFirst
    this.#leafRows = Math.min(leafRowsMax, work.chunkRows ?? leafRowsMax)
  }

  /** No more ranges come: the orders differ. */
  end(): void {
    this.#ended = true
  }

  /** Ranges that hold every row there can be, one after the other as the source has them; of a sample those that are chosen. */
  async *ranges(signal: AbortSignal): AsyncGenerator<KeyRange, void, void> {
    const { sample, sides } = this.#work
    const { pair } = this.result
    const numbers = sample && (await sides.source.edges(pair.source, { signal }))
    if (sample && numbers && pair.source.key.length === 1) {
      const borders = cutSlices(numbers, pair.rowsEstimate).map((n) => [Buffer.from(`${n}`)])
      for (let at = 0; at <= borders.length && !this.#ended; at++) {
        if (this.#isChosen(at)) yield { from: borders[at - 1], to: borders[at] }
      }
      return
    }
    const sliceRows = sample && rowsOfSlice(pair.rowsEstimate)
    const rows = () => sliceRows ?? this.#chunkRows
    let at = 0
    for await (const range of walk(sides.source, pair.source, {}, { rows, signal })) {
      if (this.#ended) return
      if (this.#isChosen(at++)) yield range
    }
  }

  #isChosen(slice: number): boolean {
    const { sample } = this.#work
    return sample === undefined || isChosen(sample, this.result.pair.name.join('.'), slice)
  }

  /** Compares one range. Throws Disordered. */
  async compare(range: KeyRange, signal: AbortSignal): Promise<void> {
    const { time } = this.#work
    const startedMs = time.monotonicMs()
    const sums = await this.#sums(range, signal)
    this.#adapt(time.monotonicMs() - startedMs)
    await this.#compare(sums, signal)
    this.result.sourceRows += sums.source
    this.result.targetRows += sums.target
    this.#work.progress.doneItems += Number(sums.source)
    if (this.#pending.length >= pendingMax) await this.settle(signal)
  }

  #adapt(tookMs: number): void {
    if (this.#work.chunkRows !== undefined) return
    if (tookMs < momentMinMs) this.#chunkRows = Math.min(chunkRowsMax, this.#chunkRows * 2)
    if (tookMs > momentMaxMs) {
      this.#chunkRows = Math.max(chunkRowsMin, Math.floor(this.#chunkRows / 2))
    }
  }

  /** Looks at what differs again, and tells what is left. */
  async settle(signal: AbortSignal): Promise<void> {
    const pending = this.#pending
    this.#pending = []
    this.#settling += pending.length
    await settle(this.#work, this.result, pending, signal)
    this.#settling -= pending.length
  }

  async #sums(range: KeyRange, signal: AbortSignal): Promise<Sums> {
    const { sides, pace } = this.#work
    const { pair } = this.result
    const [from, to] = await both(
      sides.source.sum(pair.source, range, { signal }),
      sides.target.sum(pair.target, range, { signal }),
    )
    if (!from.ordered || !to.ordered) throw new Disordered()
    const rows = from.rows > to.rows ? from.rows : to.rows
    await pace?.pass(rows, signal)
    const equal = from.rows === to.rows && from.sum === to.sum
    return { range, source: from.rows, target: to.rows, rows, equal }
  }

  async #compare(sums: Sums, signal: AbortSignal): Promise<void> {
    const { sides } = this.#work
    const { pair } = this.result
    const { range, rows } = sums
    if (sums.equal) return
    if (this.#isFull()) {
      this.result.more = true
      return
    }
    if (rows <= BigInt(this.#leafRows)) {
      await this.#list(range, signal)
      return
    }
    const most: readonly [Digester, DigestTable] =
      sums.source > sums.target ? [sides.source, pair.source] : [sides.target, pair.target]
    const step = Math.ceil(Math.max(this.#leafRows / 2, Number(rows) / cutsMax))
    // All before the first is cut again: borders that the other side has in another order are found out, instead of the two
    // sides cutting each other's ranges without an end.
    const parts: Sums[] = []
    for await (const part of walk(...most, range, { rows: () => step, signal })) {
      parts.push(await this.#sums(part, signal))
    }
    for (const part of parts) await this.#compare(part, signal)
  }

  #isFull(): boolean {
    if (this.#work.repair) return false
    return this.result.found + this.#settling + this.#pending.length >= differencesMax
  }

  /** Each row of a small range, by its key. */
  async #list(range: KeyRange, signal: AbortSignal): Promise<void> {
    const { sides } = this.#work
    const { pair } = this.result
    const [from, to] = await both(
      sides.source.list(pair.source, range, { signal }),
      sides.target.list(pair.target, range, { signal }),
    )
    const found = differing(from, to)
    if (pair.loose.length === 0) {
      this.#pending.push(...found)
      return
    }
    // Equal values may be spelled in other ways: of those that both have, only what differs by value goes on.
    const twofold = found.filter((one) => one.source !== '' && one.target !== '')
    this.#pending.push(...found.filter((one) => one.source === '' || one.target === ''))
    const byKey = new Map(twofold.map((one) => [keyText(one.key), one]))
    for await (const { differences, changed } of examine(this.#work, pair, twofold, signal)) {
      this.#pending.push(...changed)
      for (const { key } of differences) {
        const one = key && byKey.get(keyText(key))
        if (one) this.#pending.push(one)
      }
    }
  }
}

/** Cuts a range along a side's own order, so many rows a piece. */
async function* walk(
  side: Digester,
  table: DigestTable,
  range: KeyRange,
  { rows, signal }: { readonly rows: () => number; readonly signal: AbortSignal },
): AsyncGenerator<KeyRange, void, void> {
  let { from } = range
  for (;;) {
    const border = await side.border(table, { from, to: range.to }, { rows: rows(), signal })
    yield { from, to: border ?? range.to }
    if (border === undefined) return
    from = border
  }
}

function differing(source: readonly KeyDigest[], target: readonly KeyDigest[]): KeyedDifference[] {
  const there = new Map(target.map((row) => [keyText(row.key), row]))
  const found: KeyedDifference[] = []
  for (const { key, digest } of source) {
    const text = keyText(key)
    const other = there.get(text)?.digest ?? ''
    there.delete(text)
    if (other !== digest) found.push({ key, source: digest, target: other })
  }
  for (const { key, digest } of there.values()) found.push({ key, source: '', target: digest })
  return found
}
