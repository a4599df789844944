import { Fault } from '#base/faults'

const headBytes = 5
const data = 'd'.charCodeAt(0)
/** What is no data is the name of an archive at most. */
const wordBytesMax = 64 * 1024

/** What a run holds, in order: pieces of data, or the body of a message that is something else, its tag first. */
export type CopyPart =
  | { readonly kind: 'data'; readonly pieces: readonly Buffer[] }
  | { readonly kind: 'word'; readonly body: Buffer }

/**
 * The bodies of the CopyData messages of a base backup, out of runs as `Wire.copyRun` gives them: cut anywhere but within
 * a head. Data is handed out in views as it came: to join what was cut would take fresh memory for each message.
 */
export class CopyBodies {
  readonly #isTagged: boolean
  /** Bytes of the present body that are to come. */
  #left = 0
  /** Nothing of the present body has come yet. */
  #isFresh = false
  #word: Buffer[] | undefined

  /** `isTagged`: the first byte of each body says what it is. */
  constructor(isTagged: boolean) {
    this.#isTagged = isTagged
  }

  read(run: Buffer): CopyPart[] {
    const parts: CopyPart[] = []
    let pieces: Buffer[] = []
    for (let at = 0; at < run.length; ) {
      if (this.#left === 0) {
        this.#begin(run.readInt32BE(at + 1) - 4)
        at += headBytes
        continue
      }
      if (this.#isFresh) {
        this.#isFresh = false
        if (this.#isTagged && run[at] === data) {
          at += 1
          this.#left -= 1
        } else if (this.#isTagged) this.#word = []
      }
      const piece = run.subarray(at, at + this.#left)
      at += piece.length
      this.#left -= piece.length
      const body = this.#word ? this.#addWord(this.#word, piece) : undefined
      if (!this.#word && piece.length > 0) pieces.push(piece)
      if (!body) continue
      this.#word = undefined
      if (pieces.length > 0) parts.push({ kind: 'data', pieces })
      pieces = []
      parts.push({ kind: 'word', body })
    }
    if (pieces.length > 0) parts.push({ kind: 'data', pieces })
    return parts
  }

  #begin(sizeBytes: number): void {
    if (sizeBytes === 0 && this.#isTagged) {
      throw new Fault('protocol', 'read a base backup: an empty message')
    }
    this.#left = sizeBytes
    this.#isFresh = true
  }

  /** The whole body once all of it has come. */
  #addWord(word: Buffer[], piece: Buffer): Buffer | undefined {
    // What was read is written over: see `openBulkSender`.
    word.push(Buffer.from(piece))
    const size = word.reduce((sum, one) => sum + one.length, this.#left)
    if (size > wordBytesMax) {
      throw new Fault('protocol', `read a base backup: message of ${size} bytes that is no data`)
    }
    return this.#left === 0 ? Buffer.concat(word) : undefined
  }
}
