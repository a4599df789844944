import { assert } from '#base/faults'
import { hexWords } from './blob-table.ts'

const idWordsCount = 8

/** Numbers for pack ids, given in the order of arrival: 32 bytes a pack and 5 to 10 for its slot. */
export class PackNames {
  #ids = new Uint32Array(idWordsCount * 64)
  #slots = new Uint32Array(128)
  #count = 0

  get count(): number {
    return this.#count
  }

  get sizeBytes(): number {
    return this.#ids.byteLength + this.#slots.byteLength
  }

  has(pack: string): boolean {
    return this.#find(hexWords(pack)) >= 0
  }

  nameOf(number: number): string {
    assert(number < this.#count, 'a pack number was given out before')
    return Buffer.from(this.#ids.buffer, number * idWordsCount * 4, 32).toString('hex')
  }

  /** Gives a pack that is not known yet its number. */
  add(pack: string): number {
    const words = hexWords(pack)
    if ((this.#count + 1) * idWordsCount > this.#ids.length) this.#ids = enlarged(this.#ids)
    this.#ids.set(words, this.#count * idWordsCount)
    this.#count++
    if (this.#count > this.#slots.length * 0.8) {
      this.#slots = new Uint32Array(this.#slots.length * 2)
      for (let i = 0; i < this.#count; i++) this.#link(i)
    } else {
      this.#link(this.#count - 1)
    }
    return this.#count - 1
  }

  #link(number: number): void {
    const mask = this.#slots.length - 1
    let slot = (this.#ids[number * idWordsCount] ?? 0) & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    this.#slots[slot] = number + 1
  }

  #find(words: Uint32Array): number {
    const mask = this.#slots.length - 1
    for (let slot = (words[0] ?? 0) & mask; ; slot = (slot + 1) & mask) {
      const number = (this.#slots[slot] ?? 0) - 1
      if (number < 0) return -1
      const at = number * idWordsCount
      let same = true
      for (let i = 0; i < idWordsCount && same; i++) same = this.#ids[at + i] === words[i]
      if (same) return number
    }
  }

  clear(): void {
    this.#slots.fill(0)
    this.#count = 0
  }
}

// By an eighth, not by double: what is reserved and not used counts as well.
function enlarged(old: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const next = new Uint32Array(Math.ceil((old.length * 1.125) / idWordsCount) * idWordsCount)
  next.set(old)
  return next
}
