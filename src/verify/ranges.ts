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

/** Compares a table by ranges of its key. */
export class Ranges {
  readonly result: TableResult
  readonly #work: Work
  #chunkRows: number
  #pending: KeyedDifference[] = []
  /** Those that are looked at again now. */
  #settling = 0
  #ended = false

  constructor(work: Work, result: TableResult) {
    this.#work = work
    this.result = result
    this.#chunkRows = work.chunkRows ?? chunkRowsFirst
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
    const rows = await this.#compare(range, signal)
    this.#adapt(time.monotonicMs() - startedMs)
    this.result.sourceRows += rows.source
    this.result.targetRows += rows.target
    this.#work.progress.doneItems += Number(rows.source)
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

  async #compare(
    range: KeyRange,
    signal: AbortSignal,
  ): Promise<{ readonly source: bigint; readonly target: bigint }> {
    const { sides, pace } = this.#work
    const { pair } = this.result
    const [from, to] = await both(
      sides.source.sum(pair.source, range, { signal }),
      sides.target.sum(pair.target, range, { signal }),
    )
    if (!from.ordered || !to.ordered) throw new Disordered()
    const rows = from.rows > to.rows ? from.rows : to.rows
    await pace?.pass(rows, signal)
    const counts = { source: from.rows, target: to.rows }
    if (from.rows === to.rows && from.sum === to.sum) return counts
    if (this.#isFull()) {
      this.result.more = true
      return counts
    }
    if (rows <= BigInt(leafRowsMax)) {
      await this.#list(range, signal)
      return counts
    }
    const most: readonly [Digester, DigestTable] =
      from.rows > to.rows ? [sides.source, pair.source] : [sides.target, pair.target]
    const step = Math.max(leafRowsMax / 2, Math.ceil(Number(rows) / cutsMax))
    for await (const part of walk(...most, range, { rows: () => step, signal })) {
      await this.#compare(part, signal)
    }
    return counts
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
