/** More than any chunk takes: what a huge tree needed once is not kept. */
const keptBytesMax = 12 * 1024 * 1024

/** Memory for one step at a time; grows to the largest. */
export class Scratch {
  #bytes = Buffer.alloc(0)

  /** Exactly `size` bytes; what was there before is gone. */
  room(size: number): Buffer {
    const isHuge = size > keptBytesMax
    if (isHuge) return Buffer.allocUnsafeSlow(size)
    if (this.#bytes.length < size) {
      this.#bytes = Buffer.allocUnsafeSlow(Math.min(Math.ceil(size * 1.25), keptBytesMax))
    }
    return this.#bytes.subarray(0, size)
  }
}
