import { chmod } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { Fault } from '#base/faults'

/** A file that was asked for: its length, and its bytes. */
export type Served = { readonly sizeBytes: number; readonly content: AsyncIterable<Buffer> }

const nameBytesMax = 200

/** Answers `wal-fetch` on a local socket; the protocol stands there. */
export class WalServer implements AsyncDisposable {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
    server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  /** `find` may take its time: the server's recovery waits. What it throws is handed on as trouble. */
  static async listen(
    socketPath: string,
    find: (name: string) => Promise<Served | undefined>,
  ): Promise<WalServer> {
    const server = createServer((socket) => {
      answer(socket, find).catch((error: unknown) => {
        socket.destroy(error instanceof Error ? error : new Error(String(error)))
      })
      socket.on('error', () => socket.destroy())
    })
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    server.once('error', reject)
    server.listen(socketPath, resolve)
    await promise
    // The server's own user asks; the folder around decides who may reach it.
    await chmod(socketPath, 0o666)
    return new WalServer(server)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#server.close(() => resolve())
    await promise
  }
}

async function answer(
  socket: Socket,
  find: (name: string) => Promise<Served | undefined>,
): Promise<void> {
  const name = await readName(socket)
  let served: Served | undefined
  try {
    served = await find(name)
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error)
    socket.end(Buffer.from(`E${said}`, 'utf8'))
    return
  }
  if (!served) {
    socket.end(Buffer.from('N', 'latin1'))
    return
  }
  const head = Buffer.alloc(9)
  head.write('F', 0, 'latin1')
  head.writeBigUInt64BE(BigInt(served.sizeBytes), 1)
  socket.write(head)
  await pipeline(served.content, socket)
}

async function readName(socket: Socket): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  let text = ''
  const take = (chunk: Buffer) => {
    text += chunk.toString('latin1')
    const end = text.indexOf('\n')
    if (end >= 0) resolve(text.slice(0, end))
    else if (text.length > nameBytesMax) reject(new Fault('protocol', 'read a WAL name: too long'))
  }
  socket.on('data', take)
  socket.once('close', () => reject(new Fault('protocol', 'read a WAL name: none came')))
  try {
    return await promise
  } finally {
    socket.off('data', take)
    socket.resume()
  }
}
