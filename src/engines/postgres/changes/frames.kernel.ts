import { Fault } from '#base/faults'

const copyData = 0x64
const headBytes = 5
const blockBytes = 1 << 20
/** A message longer than this is taken for a broken stream. */
const messageBytesMax = 1 << 30

/**
 * Whole CopyData messages out of a stream that is cut anywhere. They are laid one behind the other into blocks of memory that
 * are never written again, so that offsets into them hold as long as somebody keeps the block.
 */
export class Frames {
  /** The block that the present message is in. */
  bytes: Buffer = Buffer.alloc(0)
  /** Where the present message's content begins and ends. */
  at = 0
  end = 0
  #next = 0
  #fill = 0

  /** Where the present message begins, its head included. */
  get head(): number {
    return this.at - headBytes
  }

  /** Bytes of a message that is not whole yet. */
  get left(): number {
    return this.#fill - this.#next
  }

  take(run: Buffer): void {
    if (this.#fill + run.length > this.bytes.length) this.#renew(run.length)
    run.copy(this.bytes, this.#fill)
    this.#fill += run.length
  }

  /** Goes on to the next message; false when it is not whole yet. */
  next(): boolean {
    const begin = this.#next
    if (begin + headBytes > this.#fill) return false
    const end = begin + 1 + this.#size(begin)
    if (end > this.#fill) return false
    this.at = begin + headBytes
    this.end = end
    this.#next = end
    return true
  }

  #size(begin: number): number {
    const { bytes } = this
    const type = bytes[begin]
    const size = bytes.readInt32BE(begin + 1)
    if (type !== copyData || size < 4 || size > messageBytesMax) {
      throw new Fault('protocol', `read the change stream: message ${type} of ${size} bytes`)
    }
    return size
  }

  // A long message is given its whole room at once: it comes in pieces, and moving it for each would cost its square.
  #renew(more: number): void {
    const { left } = this
    const known = left >= headBytes ? this.#size(this.#next) + 1 : 0
    const wanted = Math.max(left + more, known > blockBytes ? known + more : 0)
    const block = Buffer.allocUnsafeSlow(Math.max(blockBytes, wanted))
    this.bytes.copy(block, 0, this.#next, this.#fill)
    this.bytes = block
    this.#next = 0
    this.#fill = left
  }
}
