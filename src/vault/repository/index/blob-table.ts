import { assert } from '#base/faults'

// One record a blob, in memory that worker threads share: twelve 32-bit words of which eight are the id.
const recordWords = 12
const placeWord = 8
const recordBytes = recordWords * 4
const treeBit = 0x8000_0000

/** In the place of a pack's number: claimed by a saver whose pack is not stored yet. */
export const pendingPack = 0x7fff_ffff

const growBytes = 256 * recordBytes * 64
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
  readonly #head: Int32Array
  readonly #records: Uint32Array
  readonly #slots: Uint32Array
  readonly #capacity: number

  constructor(source: { readonly capacity: number } | { readonly shared: SharedTable }) {
    this.shared = 'shared' in source ? source.shared : reserve(source.capacity)
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
    for (let i = 0; i < placeWord; i++) if (this.#records[at + i] !== id[i]) return false
    return ((this.#word(record, placeWord) & treeBit) !== 0) === tree
  }

  #word(record: number, word: number): number {
    return this.#records[record * recordWords + word] ?? 0
  }

  placeOf(record: number): Place {
    return {
      pack: (this.#word(record, placeWord) & ~treeBit) >>> 0,
      offset: this.#word(record, placeWord + 1),
      length: this.#word(record, placeWord + 2),
      plainLength: this.#word(record, placeWord + 3),
    }
  }

  isTree(record: number): boolean {
    return (this.#word(record, placeWord) & treeBit) !== 0
  }

  /** Copies the id of a record into `id`. */
  idOf(record: number, id: Uint32Array): void {
    const at = record * recordWords
    for (let i = 0; i < placeWord; i++) id[i] = this.#records[at + i] ?? 0
  }

  setPlace(record: number, tree: boolean, place: Place): void {
    const at = record * recordWords + placeWord
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
      records.grow(Math.min(records.byteLength + growBytes, records.maxByteLength))
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
  }
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

/** The words of an id in hexadecimal. */
export function hexWords(id: string): Uint32Array {
  return idWords(Buffer.from(id, 'hex'))
}

export function wordsHex(id: Uint32Array): string {
  return Buffer.from(id.buffer, id.byteOffset, 32).toString('hex')
}
