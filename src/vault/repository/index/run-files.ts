import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { assert, Fault, fromSystem } from '#base/faults'
import type { Place } from './blob-table.ts'
import { idWordCount, packWord, recordBytes, recordWords, treeBit } from './record.ts'

/** Sorted files at a time; with four million blobs each that is a billion. */
const runsMax = 255
/** Records that are read at a time while searching: just below a page of the system. */
const pageRecords = 84
const scanRecords = 16_384

/** Which files there are: pairs of descriptor and count behind the words below. Threads of a process share both. */
export type SharedRuns = SharedArrayBuffer

const runsWord = 0
/** Counts how often all files were given up: pages that were read before say nothing any more. */
const clearedWord = 1
const pairsAt = 2

/**
 * Records of blobs that no longer fit in memory: sorted files without names, which end with the process. Looked
 * up by interpolation, since ids are evenly spread: some five small reads, all served by the page cache.
 */
export class RunFiles {
  readonly shared: SharedRuns
  readonly #words: Int32Array
  readonly #page = new Uint32Array(pageRecords * recordWords)
  /** What stands in the page: of which run, from which record on, and as of which clearing. */
  #loaded = { run: -1, first: 0, cleared: 0 }

  constructor(shared: SharedRuns = new SharedArrayBuffer((pairsAt + 2 * runsMax) * 4)) {
    this.shared = shared
    this.#words = new Int32Array(shared)
  }

  get #runs(): number {
    return Atomics.load(this.#words, runsWord)
  }

  #countOf(run: number): number {
    return this.#words[pairsAt + 1 + 2 * run] ?? 0
  }

  #fileOf(run: number): number {
    return this.#words[pairsAt + 2 * run] ?? -1
  }

  /** Records in all files. */
  get count(): number {
    let count = 0
    for (let run = 0; run < this.#runs; run++) count += this.#countOf(run)
    return count
  }

  /** Writes records, sorted by their id words, to a file of their own. */
  add(records: Uint32Array): void {
    const run = this.#runs
    assert(run < runsMax, 'there is a limit to the size of an index')
    const file = system('write an index file', () => openNameless())
    const bytes = new Uint8Array(records.buffer, records.byteOffset, records.byteLength)
    for (let at = 0; at < bytes.length; ) {
      at += system('write an index file', () => writeSync(file, bytes, at))
    }
    this.#words[pairsAt + 2 * run] = file
    this.#words[pairsAt + 1 + 2 * run] = records.length / recordWords
    Atomics.store(this.#words, runsWord, run + 1)
  }

  /** The places of a blob in these files. */
  *find(id: Uint32Array, tree: boolean): Generator<Place, undefined> {
    for (let run = 0; run < this.#runs; run++) {
      const count = this.#countOf(run)
      for (let record = this.#lowerBound(run, id); record < count; record++) {
        const at = this.#load(run, record)
        if (compareIds(this.#page, at, id, 0) !== 0) break
        if ((((this.#page[at + packWord] ?? 0) & treeBit) !== 0) === tree) {
          yield placeAt(this.#page, at)
        }
      }
    }
    return undefined
  }

  has(id: Uint32Array, tree: boolean): boolean {
    return this.find(id, tree).next().done !== true
  }

  /** The first record that does not sort before `id`. */
  #lowerBound(run: number, id: Uint32Array): number {
    let [low, high] = [0, this.#countOf(run)]
    // Where the id should lie; from there on by halves, unless the first guesses enclose it.
    let guess = Math.floor(((id[0] ?? 0) / 2 ** 32) * high)
    let step = 64
    while (low < high) {
      const middle = Math.min(Math.max(guess, low), high - 1)
      const at = this.#load(run, middle)
      if (compareIds(this.#page, at, id, 0) < 0) {
        low = middle + 1
        guess = low + step
      } else {
        high = middle
        guess = high - step
      }
      step *= 4
      if (guess <= low || guess >= high) guess = (low + high) >>> 1
    }
    return low
  }

  /** Where a record stands in the page, which is read if it is another one. */
  #load(run: number, record: number): number {
    const first = record - (record % pageRecords)
    const cleared = Atomics.load(this.#words, clearedWord)
    const loaded = this.#loaded
    if (run !== loaded.run || first !== loaded.first || cleared !== loaded.cleared) {
      loaded.run = -1
      this.#read(run, first, this.#page)
      this.#loaded = { run, first, cleared }
    }
    return (record - first) * recordWords
  }

  #read(run: number, first: number, into: Uint32Array): number {
    const file = this.#fileOf(run)
    const bytes = new Uint8Array(into.buffer, into.byteOffset, into.byteLength)
    const size = Math.min(bytes.length, (this.#countOf(run) - first) * recordBytes)
    for (let at = 0; at < size; ) {
      const got = system('read an index file', () =>
        readSync(file, bytes, at, size - at, first * recordBytes + at),
      )
      if (got === 0) throw new Fault('io', 'read an index file: it is shorter than it was')
      at += got
    }
    return size / recordBytes
  }

  /** Every record: `visit` gets the words and where the record begins in them. */
  *records(): Generator<{ readonly words: Uint32Array; readonly at: number }> {
    const words = new Uint32Array(scanRecords * recordWords)
    for (let run = 0; run < this.#runs; run++) {
      for (let first = 0; first < this.#countOf(run); first += scanRecords) {
        const count = this.#read(run, first, words)
        for (let i = 0; i < count; i++) yield { words, at: i * recordWords }
      }
    }
  }

  /** Closes and so removes all files. */
  clear(): void {
    const runs = this.#runs
    Atomics.store(this.#words, runsWord, 0)
    Atomics.add(this.#words, clearedWord, 1)
    for (let run = 0; run < runs; run++) closeSync(this.#fileOf(run))
  }
}

export function placeAt(words: Uint32Array, at: number): Place {
  return {
    pack: ((words[at + packWord] ?? 0) & ~treeBit) >>> 0,
    offset: words[at + packWord + 1] ?? 0,
    length: words[at + packWord + 2] ?? 0,
    plainLength: words[at + packWord + 3] ?? 0,
  }
}

/** The order of ids: by their words as numbers. */
export function compareIds(a: Uint32Array, atA: number, b: Uint32Array, atB: number): number {
  for (let i = 0; i < idWordCount; i++) {
    const difference = (a[atA + i] ?? 0) - (b[atB + i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

/** A file that only this process sees, and that is gone when it ends. */
function openNameless(): number {
  const folder = mkdtempSync(path.join(tmpdir(), 'redoubt-index-'))
  try {
    return openSync(path.join(folder, 'run'), 'wx+', 0o600)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function system<T>(doing: string, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromSystem(error, doing)
  }
}
