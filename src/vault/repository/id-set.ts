import { assert } from '#base/faults'

const wordsPerId = 8
const notHex = 255
const nibbles = new Uint8Array(128).fill(notHex)
for (let value = 0; value < 16; value++) nibbles[value.toString(16).charCodeAt(0)] = value
const idsFirst = 256

/**
 * A set of ids, numbered in the order of arrival: 32 bytes an id and 8 to 16 for its slot, where a `Set` of strings
 * takes some 150.
 */
export class IdSet {
  #ids = new Uint32Array(wordsPerId * idsFirst)
  #slots = new Uint32Array(idsFirst * 2)
  #count = 0
  /** The id that is being looked up. */
  readonly #words = new Uint32Array(wordsPerId)

  get count(): number {
    return this.#count
  }

  has(id: string): boolean {
    return this.numberOf(id) >= 0
  }

  /** The number of an id, -1 when it is not in the set. */
  numberOf(id: string): number {
    return (this.#slots[this.#slotOf(this.#parse(id))] ?? 0) - 1
  }

  /** Adds an id; false when it was there before. */
  add(id: string): boolean {
    const words = this.#parse(id)
    const slot = this.#slotOf(words)
    if (this.#slots[slot] !== 0) return false
    if ((this.#count + 1) * wordsPerId > this.#ids.length) {
      const grown = new Uint32Array(this.#ids.length * 1.5)
      grown.set(this.#ids)
      this.#ids = grown
    }
    this.#ids.set(words, this.#count * wordsPerId)
    this.#count += 1
    this.#slots[slot] = this.#count
    // Half full: what is not in the set is then told by two or three looks.
    if (this.#count > this.#slots.length * 0.5) this.#growSlots()
    return true
  }

  *[Symbol.iterator](): Generator<string, void, void> {
    for (let number = 0; number < this.#count; number++) {
      let id = ''
      for (let word = 0; word < wordsPerId; word++) {
        id += (this.#ids[number * wordsPerId + word] ?? 0).toString(16).padStart(8, '0')
      }
      yield id
    }
  }

  /** Read digit by digit: several times as fast as by way of a Buffer, and nothing is allocated. */
  #parse(id: string): Uint32Array {
    assert(id.length === wordsPerId * 8, 'an id has 64 digits')
    for (let word = 0; word < wordsPerId; word++) {
      let value = 0
      for (let at = word * 8; at < word * 8 + 8; at++) {
        const nibble = nibbles[id.charCodeAt(at)] ?? notHex
        assert(nibble !== notHex, 'an id is hexadecimal')
        value = (value << 4) | nibble
      }
      this.#words[word] = value
    }
    return this.#words
  }

  #growSlots(): void {
    this.#slots = new Uint32Array(this.#slots.length * 2)
    for (let number = 0; number < this.#count; number++) {
      const at = number * wordsPerId
      this.#slots[this.#slotOf(this.#ids.subarray(at, at + wordsPerId))] = number + 1
    }
  }

  /** The slot that holds the id, or the free one where it belongs. Ids are evenly spread: a word is the hash. */
  #slotOf(words: Uint32Array): number {
    const mask = this.#slots.length - 1
    for (let slot = (words[0] ?? 0) & mask; ; slot = (slot + 1) & mask) {
      const number = (this.#slots[slot] ?? 0) - 1
      if (number < 0 || this.#holds(number, words)) return slot
    }
  }

  #holds(number: number, words: Uint32Array): boolean {
    const at = number * wordsPerId
    for (let word = 0; word < wordsPerId; word++) {
      if (this.#ids[at + word] !== words[word]) return false
    }
    return true
  }
}
