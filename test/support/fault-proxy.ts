import { connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Queue } from '#base/queue'

export type Direction = 'up' | 'down'

/** A place in the bytes that one connection carries: `up` is from the client to the server. */
export type Place = { readonly direction: Direction; readonly byte: number }

/** How the network misbehaves; all may be combined, and changed while connections are open. */
export type NetworkFaults = {
  /**
   * Added to the way of each byte, in each direction, with up to `jitterMs` more; the order is
   * kept.
   */
  readonly delayMs?: number | undefined
  readonly jitterMs?: number | undefined
  /** For each connection and direction. */
  readonly bytesPerSecond?: number | undefined
  /** These directions swallow everything and say nothing: both are a black hole. */
  readonly silent?: readonly Direction[] | undefined
  /** New connections are reset at once. */
  readonly refuse?: boolean | undefined
  /** At this byte a connection is reset (RST). */
  readonly resetAt?: Place | undefined
  /** At this byte a connection is ended in order (FIN), as if all had been said. */
  readonly endAt?: Place | undefined
  /** This byte arrives with its bits turned over. */
  readonly flipAt?: Place | undefined
}

/** What one direction of a connection may hold while it waits for its delay. */
const heldBytesMax = 4 * 1024 * 1024

/** A TCP proxy on loopback that does to connections what networks do. */
export class FaultProxy implements AsyncDisposable {
  readonly port: number
  /** Bytes that came in, all connections together. */
  readonly bytes: Record<Direction, number> = { up: 0, down: 0 }
  connections = 0
  #faults: NetworkFaults = {}
  readonly #server: Server
  readonly #target: { readonly host: string; readonly port: number }
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server, port: number, target: { host: string; port: number }) {
    this.#server = server
    this.port = port
    this.#target = target
    server.on('connection', (client) => this.#serve(client))
  }

  static async start(target: { host?: string; port: number }): Promise<FaultProxy> {
    const server = createServer({ allowHalfOpen: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    const address = server.address()
    if (!address || typeof address === 'string') throw new Error('the proxy has no port')
    return new FaultProxy(server, address.port, { host: target.host ?? '127.0.0.1', ...target })
  }

  /** From now on the network does this, and nothing else. */
  set(faults: NetworkFaults): void {
    this.#faults = faults
  }

  /** Resets every open connection. */
  resetAll(): void {
    for (const socket of this.#sockets) resetSocket(socket)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.resetAll()
    await closed
  }

  #serve(client: Socket): void {
    this.connections += 1
    if (this.#faults.refuse) {
      resetSocket(client)
      return
    }
    const server = connect({ ...this.#target, allowHalfOpen: true, noDelay: true })
    client.setNoDelay(true)
    for (const socket of [client, server]) {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
      // One side lost is both sides lost.
      socket.on('error', () => {
        resetSocket(client)
        resetSocket(server)
      })
    }
    this.#carry('up', client, server)
    this.#carry('down', server, client)
  }

  #carry(direction: Direction, source: Socket, target: Socket): void {
    const held = new Queue<{ readonly dueMs: number; readonly bytes: Buffer }>(heldBytesMax)
    const fail = () => {
      resetSocket(source)
      resetSocket(target)
    }
    this.#take(direction, source, held).catch(fail)
    this.#give(direction, held, target).catch(fail)
  }

  async #take(
    direction: Direction,
    source: Socket,
    held: Queue<{ readonly dueMs: number; readonly bytes: Buffer }>,
  ): Promise<void> {
    let dueMs = 0
    for await (const bytes of source as AsyncIterable<Buffer>) {
      this.bytes[direction] += bytes.length
      const { delayMs = 0, jitterMs = 0, bytesPerSecond } = this.#faults
      const now = performance.now()
      const paceMs = bytesPerSecond ? (bytes.length / bytesPerSecond) * 1000 : 0
      dueMs = Math.max(dueMs, now + delayMs + Math.random() * jitterMs) + paceMs
      await held.push({ dueMs, bytes }, bytes.length)
    }
    held.end()
  }

  async #give(
    direction: Direction,
    held: Queue<{ readonly dueMs: number; readonly bytes: Buffer }>,
    target: Socket,
  ): Promise<void> {
    let passed = 0
    for await (const { dueMs, bytes } of held) {
      const waitMs = dueMs - performance.now()
      if (waitMs > 0) await sleep(waitMs)
      if (this.#faults.silent?.includes(direction)) continue
      const { resetAt, endAt, flipAt } = this.#faults
      const flip = within(flipAt, direction, passed, bytes.length)
      if (flip !== undefined) bytes[flip] = ~(bytes[flip] ?? 0) & 0xff
      const stop = within(resetAt ?? endAt, direction, passed, bytes.length)
      passed += bytes.length
      const sent = stop === undefined ? bytes : bytes.subarray(0, stop)
      if (sent.length > 0) await write(target, sent)
      if (stop !== undefined && resetAt) throw new Error('reset as told')
      if (stop !== undefined) break
    }
    if (!target.destroyed && !this.#faults.silent?.includes(direction)) target.end()
  }
}

/** Where in this chunk the place lies, if it does. */
function within(
  place: Place | undefined,
  direction: Direction,
  passed: number,
  size: number,
): number | undefined {
  if (place?.direction !== direction) return undefined
  const at = place.byte - passed
  return at >= 0 && at < size ? at : undefined
}

function write(socket: Socket, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(bytes, (error) => (error ? reject(error) : resolve()))
  })
}

/**
 * Ends a connection with RST. A socket that was told to end in order cannot be reset any more: node
 * would keep its handle for ever, and the process would never exit.
 */
export function resetSocket(socket: Socket): void {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}
