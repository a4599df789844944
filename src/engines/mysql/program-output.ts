import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { fromSystem } from '#base/faults'
import { Inlet } from './protocol/inlet.ts'

/**
 * The way from a program's standard output into memory that is used again and again: an ordinary pipe of a child leaves a
 * buffer for every 64 KiB behind, and collecting those took a third of the main thread's time. It is a local socket, whose
 * one end the program is given.
 */
export class ProgramOutput implements AsyncDisposable {
  /** For the program's `stdio`; to be let go with `handedOver` when the program runs. */
  readonly end: Socket
  readonly #inlet: Inlet
  #ended = false
  #failure: { readonly error: unknown } | undefined
  #wake: () => void = () => undefined

  private constructor(end: Socket, inlet: Inlet) {
    this.end = end
    this.#inlet = inlet
    inlet.open()
    inlet.onRows = () => this.#wake()
    inlet.socket.on('error', (error) => {
      this.#failure ??= { error: fromSystem(error, 'read the output of a program') }
      this.#stop()
    })
    // Everything that was sent has come by then.
    inlet.socket.on('end', () => this.#stop())
    inlet.socket.on('close', () => this.#stop())
  }

  static async open(): Promise<ProgramOutput> {
    const folder = await mkdtemp(join(tmpdir(), 'redoubt-output-'))
    const server = createServer({ pauseOnConnect: true })
    try {
      const path = join(folder, 's')
      const end = accept(server, path)
      end.catch(() => undefined)
      await once(server, 'listening')
      const inlet = new Inlet({ socket: path, host: '', port: 0 })
      return new ProgramOutput(await end, inlet)
    } catch (error) {
      throw fromSystem(error, 'open a socket for the output of a program')
    } finally {
      server.close()
      await rm(folder, { recursive: true, force: true })
    }
  }

  /** The program has its end: ours would keep the output open when it is gone. */
  handedOver(): void {
    this.end.destroy()
  }

  /** All that the program writes. Each buffer lasts until the next is asked for. */
  async *read(): AsyncGenerator<Buffer, void, void> {
    for (;;) {
      if (this.#inlet.waitingBytes > 0) {
        yield this.#inlet.take()
        continue
      }
      if (this.#failure) throw this.#failure.error
      if (this.#ended) return
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  #stop(): void {
    this.#ended = true
    this.#wake()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.end.destroy()
    this.#inlet.socket.destroy()
  }
}

async function accept(server: Server, path: string): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  server.once('connection', resolve)
  server.once('error', reject)
  server.listen(path)
  return promise
}
