import { connect, type Socket } from 'node:net'
import type { Endpoint } from './endpoint.ts'

const readBytes = 256 * 1024
/** Two of them: one is worked on while the other fills. */
const storeBytes = 512 * 1024
const keepAliveDelayMs = 60_000

/**
 * A plain connection whose bytes come into memory that is used again and again: rows of a base would else leave a buffer
 * for every 64 KiB behind, and collecting those took more time than all that was done with the rows. Outside of rows the
 * bytes are events of the socket, as the driver expects them. https://nodejs.org/api/net.html (`onread`)
 */
export class Inlet {
  readonly socket: Socket
  /** Called when bytes of rows have come. */
  onRows: () => void = () => undefined
  #filling: Buffer | undefined
  #other: Buffer | undefined
  #used = 0
  #open = false
  #full = false

  constructor({ socket, host, port }: Pick<Endpoint, 'socket' | 'host' | 'port'>) {
    const place = socket === undefined ? { host, port } : { path: socket }
    const callback = (size: number, bytes: Uint8Array) => this.#take(size, bytes)
    this.socket = connect({ ...place, onread: { buffer: Buffer.alloc(readBytes), callback } })
    this.socket.setNoDelay(true)
    this.socket.setKeepAlive(true, keepAliveDelayMs)
  }

  get waitingBytes(): number {
    return this.#used
  }

  /** From now on bytes are gathered here, until `close`. */
  open(): void {
    this.#filling ??= Buffer.allocUnsafeSlow(storeBytes)
    this.#other ??= Buffer.allocUnsafeSlow(storeBytes)
    this.#open = true
  }

  close(): void {
    this.#open = false
    this.#used = 0
    this.#goOn()
  }

  /** What has been gathered: right until the next call. */
  take(): Buffer {
    const taken = this.#filling?.subarray(0, this.#used) ?? Buffer.alloc(0)
    ;[this.#filling, this.#other] = [this.#other, this.#filling]
    this.#used = 0
    this.#goOn()
    return taken
  }

  #goOn(): void {
    if (!this.#full) return
    this.#full = false
    this.socket.resume()
  }

  /** False stops the reading: there would be no room for as much again. */
  #take(size: number, bytes: Uint8Array): boolean {
    if (!this.#open || !this.#filling) {
      this.socket.emit('data', Buffer.from(bytes.subarray(0, size)))
      return true
    }
    this.#filling.set(bytes.subarray(0, size), this.#used)
    this.#used += size
    this.#full = storeBytes - this.#used < readBytes
    this.onRows()
    return !this.#full
  }
}
