/** Memory for one step at a time; grows to the largest. */
export class Scratch {
  #bytes = Buffer.alloc(0)

  /** Exactly `size` bytes; what was there before is gone. */
  room(size: number): Buffer {
    if (this.#bytes.length < size) this.#bytes = Buffer.allocUnsafeSlow(Math.ceil(size * 1.25))
    return this.#bytes.subarray(0, size)
  }
}
