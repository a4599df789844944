// Reads index files of the exact form that restic and we write, without making an object for each blob: a
// repository of a million blobs has 160 MB of this JSON. What deviates in any way is left to the general reader.

export type IndexVisitor = {
  /** The 32 bytes of the pack's id hold until the next call. */
  readonly pack: (id: Uint8Array) => void
  readonly blob: (
    id: Uint8Array,
    isTree: boolean,
    offset: number,
    length: number,
    plainLength: number,
  ) => void
}

const ascii = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'))
const head = ascii('{"packs":[')
const packHead = ascii('{"id":"')
const blobsHead = ascii('","blobs":[')
const typeHead = ascii('","type":"')
const dataTail = ascii('data","offset":')
const treeTail = ascii('tree","offset":')
const lengthHead = ascii(',"length":')
const plainHead = ascii(',"uncompressed_length":')
const comma = 0x2c
const brace = 0x7d
const bracket = 0x5d

const nibbles = new Uint8Array(256).fill(255)
for (let i = 0; i < 16; i++) nibbles['0123456789abcdef'.charCodeAt(i)] = i

const numberMax = 2 ** 32 - 1

class Scan {
  readonly #bytes: Uint8Array
  readonly id = new Uint8Array(32)
  number = 0
  at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  take(wanted: Uint8Array): boolean {
    const bytes = this.#bytes
    for (let i = 0; i < wanted.length; i++) if (bytes[this.at + i] !== wanted[i]) return false
    this.at += wanted.length
    return true
  }

  takeByte(wanted: number): boolean {
    if (this.#bytes[this.at] !== wanted) return false
    this.at++
    return true
  }

  takeId(): boolean {
    const bytes = this.#bytes
    let at = this.at
    if (at + 64 > bytes.length) return false
    for (let i = 0; i < 32; i++) {
      const high = nibbles[bytes[at]!]!
      const low = nibbles[bytes[at + 1]!]!
      if ((high | low) > 15) return false
      this.id[i] = (high << 4) | low
      at += 2
    }
    this.at = at
    return true
  }

  /** Digits that are no more than 32 bits, and do not begin with a zero that stands for nothing. */
  takeNumber(): boolean {
    const bytes = this.#bytes
    const first = this.at
    let value = 0
    for (; ; this.at++) {
      const digit = (bytes[this.at] ?? 0) - 0x30
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
      if (value > numberMax) return false
    }
    this.number = value
    const digits = this.at - first
    return digits === 1 || (digits > 1 && bytes[first] !== 0x30)
  }

  get isAtEnd(): boolean {
    return this.at === this.#bytes.length
  }
}

/** Whether the bytes are of the exact form; tells the visitor of all that they list, also before it finds that they are not. */
export function scanIndex(bytes: Uint8Array, visitor?: IndexVisitor): boolean {
  const scan = new Scan(bytes)
  if (!scan.take(head)) return false
  do if (!scanPack(scan, visitor)) return false
  while (scan.takeByte(comma))
  return scan.takeByte(bracket) && scan.takeByte(brace) && scan.isAtEnd
}

function scanPack(scan: Scan, visitor: IndexVisitor | undefined): boolean {
  if (!scan.take(packHead) || !scan.takeId() || !scan.take(blobsHead)) return false
  visitor?.pack(scan.id)
  do if (!scanBlob(scan, visitor)) return false
  while (scan.takeByte(comma))
  return scan.takeByte(bracket) && scan.takeByte(brace)
}

function scanBlob(scan: Scan, visitor: IndexVisitor | undefined): boolean {
  if (!scan.take(packHead) || !scan.takeId() || !scan.take(typeHead)) return false
  const isTree = scan.take(treeTail)
  if ((!isTree && !scan.take(dataTail)) || !scan.takeNumber()) return false
  const offset = scan.number
  if (!scan.take(lengthHead) || !scan.takeNumber()) return false
  const length = scan.number
  const isPacked = scan.take(plainHead)
  if (isPacked && !scan.takeNumber()) return false
  if (!scan.takeByte(brace)) return false
  visitor?.blob(scan.id, isTree, offset, length, isPacked ? scan.number : 0)
  return true
}
