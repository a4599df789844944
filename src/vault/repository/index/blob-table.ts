import { assert } from '#base/faults'
import { takeId } from '../blob-id.ts'
import { idWordCount, packWord, recordBytes, recordWords, treeBit } from './record.ts'
import { compareIds, placeAt, RunFiles, type SharedRuns } from './run-files.ts'

/** In the place of a pack's number: claimed by a saver whose pack is not stored yet. */
export const pendingPack = 0x7fff_ffff

/** Memory is added in steps of a 64th, and of no less than so many records. */
const growRecordsMin = 1024
const slotsFirst = 1024

// Words of the head.
const lockWord = 0
const countWord = 1
const slotBitsWord = 2

/** The memory of a table: what another thread needs to take part. */
export type SharedTable = {
  readonly head: SharedArrayBuffer
  readonly records: SharedArrayBuffer
  readonly slots: SharedArrayBuffer
  readonly runs: SharedRuns
}

/** A blob's place; the pack is the number that the index gave it. */
export type Place = {
  readonly pack: number
  readonly offset: number
  readonly length: number
  readonly plainLength: number
}

/**
 * Where blobs lie: an open hash table over fixed records, 48 bytes a blob and 5 to 10 for its slot. Both grow in
 * place up to what was reserved. All threads use it under one lock, held for some hundred nanoseconds.
 */
export class BlobTable {
  readonly shared: SharedTable
  /** What did not fit in memory any more. */
  readonly runs: RunFiles
  readonly #head: Int32Array
  readonly #records: Uint32Array
  readonly #slots: Uint32Array
  readonly #capacity: number

  constructor(source: { readonly capacity: number } | { readonly shared: SharedTable }) {
    this.shared = 'shared' in source ? source.shared : reserve(source.capacity)
    this.runs = new RunFiles(this.shared.runs)
    this.#head = new Int32Array(this.shared.head)
    this.#records = new Uint32Array(this.shared.records)
    this.#slots = new Uint32Array(this.shared.slots)
    this.#capacity = Math.floor(this.shared.records.maxByteLength / recordBytes)
  }

  get count(): number {
    return Atomics.load(this.#head, countWord)
  }

  /** Bytes that the records and their slots take. */
  get sizeBytes(): number {
    return this.shared.records.byteLength + this.shared.slots.byteLength
  }

  /** Runs `work` alone among all threads; it must be short and not throw half-way. */
  locked<T>(work: () => T): T {
    // 0 free, 1 held, 2 held and somebody waits: the futex mutex of U. Drepper, "Futexes are tricky".
    if (Atomics.compareExchange(this.#head, lockWord, 0, 1) !== 0) {
      while (Atomics.exchange(this.#head, lockWord, 2) !== 0) Atomics.wait(this.#head, lockWord, 2)
    }
    try {
      return work()
    } finally {
      if (Atomics.exchange(this.#head, lockWord, 0) === 2) Atomics.notify(this.#head, lockWord, 1)
    }
  }

  /** The record of the first place of a blob, or of the next one behind `after`; -1 when there is none. */
  findRecord(id: Uint32Array, tree: boolean, after = -1): number {
    const bits = Atomics.load(this.#head, slotBitsWord)
    const mask = 2 ** bits - 1
    let seen = after < 0
    for (let slot = firstSlot(id, mask); ; slot = (slot + 1) & mask) {
      const record = (this.#slots[slot] ?? 0) - 1
      if (record < 0) return -1
      if (!this.#holds(record, id, tree)) continue
      if (seen) return record
      seen = record === after
    }
  }

  #holds(record: number, id: Uint32Array, tree: boolean): boolean {
    const at = record * recordWords
    for (let i = 0; i < idWordCount; i++) if (this.#records[at + i] !== id[i]) return false
    return this.isTree(record) === tree
  }

  placeOf(record: number): Place {
    return placeAt(this.#records, record * recordWords)
  }

  isTree(record: number): boolean {
    return ((this.#records[record * recordWords + packWord] ?? 0) & treeBit) !== 0
  }

  /** Copies the id of a record into `id`. */
  idOf(record: number, id: Uint32Array): void {
    const at = record * recordWords
    for (let i = 0; i < idWordCount; i++) id[i] = this.#records[at + i] ?? 0
  }

  setPlace(record: number, tree: boolean, place: Place): void {
    const at = record * recordWords + packWord
    this.#records[at] = (place.pack | (tree ? treeBit : 0)) >>> 0
    this.#records[at + 1] = place.offset
    this.#records[at + 2] = place.length
    this.#records[at + 3] = place.plainLength
  }

  /** Adds a record, also beside one of the same id; false when the table is at its limit. */
  add(id: Uint32Array, tree: boolean, place: Place): boolean {
    const record = this.count
    if (record >= this.#capacity) return false
    this.#makeRoom(record + 1)
    this.#records.set(id, record * recordWords)
    this.setPlace(record, tree, place)
    this.#link(record)
    Atomics.store(this.#head, countWord, record + 1)
    return true
  }

  /**
   * Claims a blob for a saver, told apart by its number. True when nobody has it yet, or only a saver that was
   * given up: the caller must store it. False when it is stored, or another thread of this saver stores it.
   */
  claim(id: Uint32Array, tree: boolean, saver: number): boolean {
    return this.locked(() => {
      const record = this.findRecord(id, tree)
      const claim = { pack: pendingPack, offset: saver, length: 0, plainLength: 0 }
      if (record < 0) {
        if (this.runs.has(id, tree)) return false
        // At the limit the claim goes unrecorded: a blob stored twice is legal, and only takes room.
        this.add(id, tree, claim)
        return true
      }
      const place = this.placeOf(record)
      if (place.pack !== pendingPack || place.offset === saver) return false
      this.setPlace(record, tree, claim)
      return true
    })
  }

  #makeRoom(count: number): void {
    const { records, slots } = this.shared
    if (count * recordBytes > records.byteLength) {
      const step = Math.max(growRecordsMin, Math.ceil(count / 64)) * recordBytes
      records.grow(Math.min(records.byteLength + step, records.maxByteLength))
    }
    const bits = Atomics.load(this.#head, slotBitsWord)
    if (count <= 2 ** bits * 0.8) return
    assert(slots.byteLength * 2 <= slots.maxByteLength, 'a full blob table has slots to spare')
    slots.grow(slots.byteLength * 2)
    Atomics.store(this.#head, slotBitsWord, bits + 1)
    this.#slots.fill(0)
    for (let record = 0; record < this.count; record++) this.#link(record)
  }

  #link(record: number): void {
    const mask = 2 ** Atomics.load(this.#head, slotBitsWord) - 1
    let slot = (this.#records[record * recordWords] ?? 0) & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    this.#slots[slot] = record + 1
  }

  /** Forgets all records; the memory stays reserved. */
  clear(): void {
    this.#slots.fill(0)
    Atomics.store(this.#head, countWord, 0)
    this.runs.clear()
  }

  /** Moves all places to a sorted file; claims stay. For the thread that owns the index, which holds the lock. */
  spill(): void {
    const { claims, sorted } = this.#sortedRecords()
    if (sorted.length === 0) return
    this.runs.add(sorted)
    this.#slots.fill(0)
    this.#records.set(claims)
    Atomics.store(this.#head, countWord, claims.length / recordWords)
    for (let record = 0; record < this.count; record++) this.#link(record)
  }

  #sortedRecords(): { readonly claims: Uint32Array; readonly sorted: Uint32Array } {
    const places = new Uint32Array(this.count)
    const claims: number[] = []
    let count = 0
    for (let record = 0; record < this.count; record++) {
      if (this.placeOf(record).pack === pendingPack) claims.push(record)
      else places[count++] = record
    }
    const order = sortById(this.#records, places.subarray(0, count))
    return { claims: this.#gather(Uint32Array.from(claims)), sorted: this.#gather(order) }
  }

  #gather(records: Uint32Array): Uint32Array {
    const words = new Uint32Array(records.length * recordWords)
    for (let i = 0; i < records.length; i++) {
      const at = (records[i] ?? 0) * recordWords
      words.set(this.#records.subarray(at, at + recordWords), i * recordWords)
    }
    return words
  }
}

function reserve(capacity: number): SharedTable {
  let slotsMax = slotsFirst
  while (slotsMax * 0.8 < capacity) slotsMax *= 2
  const head = new SharedArrayBuffer(64)
  new Int32Array(head)[slotBitsWord] = Math.log2(slotsFirst)
  return {
    head,
    records: new SharedArrayBuffer(0, { maxByteLength: capacity * recordBytes }),
    slots: new SharedArrayBuffer(slotsFirst * 4, { maxByteLength: slotsMax * 4 }),
    runs: new RunFiles().shared,
  }
}

/** Sorts record numbers by id: two rounds over the halves of the first word, then the rare ties. */
function sortById(words: Uint32Array, records: Uint32Array): Uint32Array {
  let from = records
  let to: Uint32Array = new Uint32Array(records.length)
  for (const shift of [0, 16]) {
    const starts = new Uint32Array(65_537)
    const bucket = (record: number) => ((words[record * recordWords] ?? 0) >>> shift) & 0xffff
    for (const record of from) starts[bucket(record) + 1] = (starts[bucket(record) + 1] ?? 0) + 1
    for (let i = 1; i < starts.length; i++) starts[i] = (starts[i] ?? 0) + (starts[i - 1] ?? 0)
    for (const record of from) {
      const place = starts[bucket(record)] ?? 0
      to[place] = record
      starts[bucket(record)] = place + 1
    }
    const sorted = to
    to = from
    from = sorted
  }
  for (let i = 1; i < from.length; i++) {
    const record = from[i] ?? 0
    let at = i
    for (; at > 0; at--) {
      const before = from[at - 1] ?? 0
      if (compareIds(words, before * recordWords, words, record * recordWords) <= 0) break
      from[at] = before
    }
    from[at] = record
  }
  return from
}

// Ids are evenly spread: their first word serves as the hash.
function firstSlot(id: Uint32Array, mask: number): number {
  return (id[0] ?? 0) & mask
}

/** A view of 32 id bytes as eight words; copies when they do not lie on a word boundary. */
export function idWords(id: Uint8Array): Uint32Array {
  if (id.byteOffset % 4 === 0) return new Uint32Array(id.buffer, id.byteOffset, 8)
  return new Uint32Array(Uint8Array.from(id).buffer)
}

/** The words of an id in hexadecimal; a text that is none is a `corrupt` Fault. */
export function hexWords(id: string): Uint32Array {
  return idWords(Buffer.from(takeId(id, 'id of a blob'), 'hex'))
}

export function wordsHex(id: Uint32Array): string {
  return Buffer.from(id.buffer, id.byteOffset, 32).toString('hex')
}
