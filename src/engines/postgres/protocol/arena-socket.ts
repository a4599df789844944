import { Socket } from 'node:net'

/** One read takes at most so much. */
const readBytesMax = 256 * 1024
/** More than what may wait to be read and one read: when one half is full, all of the other one has been used. */
const halfBytes = 5 * 2 ** 20

/**
 * A socket that reads into memory of its own, used again and again: its `data` are views, which hold until the reader has
 * asked for more and another 4 MiB have come. For bulk: ordinary reads take fresh memory each, and the collector's time.
 */
export class ArenaSocket {
  readonly #arena = Buffer.allocUnsafeSlow(2 * halfBytes)
  /** The half that is being filled, and how far. */
  #half = 0
  #filled = 0
  /** All before the last read has been used. */
  #isDrained = false
  readonly socket: Socket

  constructor() {
    const socket = new Socket({
      onread: {
        buffer: () => this.#next(),
        callback: (size: number) => this.#take(size),
      },
    })
    this.socket = socket
  }

  /** The reader has used all that came. */
  drained(): void {
    this.#isDrained = true
  }

  // While the reader keeps up, the beginnings of both halves serve in turn, and stay in the processor's cache.
  #next(): Buffer {
    if (this.#isDrained || this.#filled + readBytesMax > halfBytes) {
      this.#half = 1 - this.#half
      this.#filled = 0
      this.#isDrained = false
    }
    return this.#room()
  }

  #room(): Buffer {
    const start = this.#half * halfBytes + this.#filled
    return this.#arena.subarray(start, start + readBytesMax)
  }

  #take(size: number): boolean {
    const bytes = this.#room().subarray(0, size)
    this.#filled += size
    this.socket.emit('data', bytes)
    return true
  }
}
