import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { Socket } from 'node:net'
import { Transform } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { resetSocket } from './fault-proxy.ts'

/** One request that passed by; `index` counts from 0. */
export type SeenRequest = {
  readonly index: number
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
}

/** What happens to one request. */
export type HttpFault =
  /**
   * An answer of the proxy's own; with `delivered` the server has done the work, and its answer is
   * lost.
   */
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly body?: string
      readonly type?: string
      readonly delivered?: boolean
    }
  /**
   * The connection is reset: before the request is passed on, or (`delivered`) instead of the
   * answer.
   */
  | { readonly kind: 'reset'; readonly delivered?: boolean }
  /**
   * Only so many bytes of the answer's body come, then the connection is reset, or ended in order.
   */
  | { readonly kind: 'cut'; readonly bodyBytes: number; readonly how: 'reset' | 'end' }
  /** Only so many bytes of the request's body are taken, then the connection is reset. */
  | { readonly kind: 'cut-upload'; readonly bodyBytes: number }
  /** So many bytes of the answer's body come, and then nothing. */
  | { readonly kind: 'stall'; readonly bodyBytes: number }
  /** The answer's body comes as `body` makes it. */
  | { readonly kind: 'rewrite'; readonly body: (text: string) => string }
  /**
   * Something else happens: before the request is passed on, when half of its body was, or when the server has done
   * the work and its answer is held. The connection is reset then.
   */
  | {
      readonly kind: 'call'
      readonly when: 'before' | 'middle' | 'after'
      readonly call: () => void
    }
  /** A byte of the request's or the answer's body is turned over. */
  | { readonly kind: 'flip'; readonly body: 'request' | 'answer'; readonly byte: number }

/**
 * An HTTP proxy on loopback that passes requests on as they are, signed headers included, and
 * treats those that `rule` chooses badly.
 */
export class HttpFaultProxy implements AsyncDisposable {
  readonly endpoint: string
  readonly seen: SeenRequest[] = []
  /** Decides over each request; nothing happens to those it returns undefined for. */
  rule: (request: SeenRequest) => HttpFault | undefined = () => undefined
  readonly #server: Server
  readonly #target: { readonly host: string; readonly port: number }
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server, port: number, target: { host: string; port: number }) {
    this.#server = server
    this.#target = target
    this.endpoint = `http://127.0.0.1:${port}`
    server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.setNoDelay(true)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    server.on('request', (incoming, answer) => {
      this.#serve(incoming, answer).catch(() => resetSocket(incoming.socket))
    })
  }

  static async start(target: { host?: string; port: number }): Promise<HttpFaultProxy> {
    const server = createServer()
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    const address = server.address()
    if (!address || typeof address === 'string') throw new Error('the proxy has no port')
    return new HttpFaultProxy(server, address.port, { host: target.host ?? '127.0.0.1', ...target })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    for (const socket of this.#sockets) resetSocket(socket)
    await closed
  }

  async #serve(incoming: IncomingMessage, answer: ServerResponse): Promise<void> {
    const { method = '', url: path = '' } = incoming
    const seen = { index: this.seen.length, method, path, headers: incoming.headers }
    this.seen.push(seen)
    const fault = this.rule(seen)
    if (fault?.kind === 'reset' && !fault.delivered) {
      resetSocket(incoming.socket)
      return
    }
    if (fault?.kind === 'call' && fault.when === 'before') {
      fault.call()
      resetSocket(incoming.socket)
      return
    }
    if (fault?.kind === 'answer' && !fault.delivered) {
      // The body is taken first: a client that is still sending might not read the answer.
      for await (const _ of incoming);
      reply(answer, fault)
      return
    }
    const reached = await this.#pass(incoming, fault)
    if (fault?.kind === 'answer' || fault?.kind === 'reset') {
      for await (const _ of reached);
      if (fault.kind === 'answer') reply(answer, fault)
      else resetSocket(incoming.socket)
      return
    }
    if (fault?.kind === 'call') {
      for await (const _ of reached);
      fault.call()
      resetSocket(incoming.socket)
      return
    }
    if (fault?.kind === 'rewrite') {
      const body = Buffer.from(fault.body(await text(reached)))
      const { 'content-length': _, 'transfer-encoding': __, ...headers } = reached.headers
      answer.writeHead(reached.statusCode ?? 502, { ...headers, 'content-length': body.length })
      answer.end(body)
      return
    }
    answer.writeHead(reached.statusCode ?? 502, reached.rawHeaders)
    await pipeline(reached, spoil(fault, incoming.socket), answer)
  }

  /** Sends the request on and returns the server's answer. */
  async #pass(incoming: IncomingMessage, fault: HttpFault | undefined): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const outgoing = request(
      {
        ...this.#target,
        method: incoming.method,
        path: incoming.url,
        // As they came: the signature covers the host.
        headers: incoming.headers,
        setHost: false,
        agent: false,
      },
      resolve,
    )
    outgoing.once('error', reject)
    const upload = new Transform({
      transform: (() => {
        let passed = 0
        const half = Number(incoming.headers['content-length'] ?? 0) >> 1
        return (chunk: Buffer, _encoding, done) => {
          if (fault?.kind === 'call' && fault.when === 'middle' && passed + chunk.length > half) {
            fault.call()
            resetSocket(incoming.socket)
            // The server waits for the other half, until the connection to it is closed as well.
            done(null, chunk.subarray(0, half - passed))
            return
          }
          if (fault?.kind === 'cut-upload' && passed + chunk.length > fault.bodyBytes) {
            resetSocket(incoming.socket)
          }
          if (fault?.kind === 'flip' && fault.body === 'request') flip(chunk, fault.byte - passed)
          passed += chunk.length
          done(null, chunk)
        }
      })(),
    })
    pipeline(incoming, upload, outgoing).catch((error: unknown) => {
      outgoing.destroy()
      reject(error)
    })
    return promise
  }
}

function reply(answer: ServerResponse, fault: HttpFault & { kind: 'answer' }): void {
  answer.writeHead(fault.status, { 'content-type': fault.type ?? 'application/xml' })
  answer.end(fault.body ?? '')
}

/** What stands between the server's answer and the client. */
function spoil(fault: HttpFault | undefined, client: Socket): Transform {
  let passed = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const limit = fault?.kind === 'cut' || fault?.kind === 'stall' ? fault.bodyBytes : undefined
      if (fault?.kind === 'flip' && fault.body === 'answer') flip(chunk, fault.byte - passed)
      const rest = limit === undefined ? chunk.length : Math.max(0, limit - passed)
      const whole = rest >= chunk.length
      passed += chunk.length
      this.push(chunk.subarray(0, rest))
      if (whole) done()
      else if (fault?.kind === 'cut') cutOff(client, fault.how)
      // A stall neither goes on nor ends: `done` is never called.
    },
  })
}

/** Ends the connection once what was written has gone out. */
function cutOff(client: Socket, how: 'reset' | 'end'): void {
  setImmediate(() => {
    if (how === 'end') client.end()
    else resetSocket(client)
  })
}

function flip(chunk: Buffer, at: number): void {
  if (at >= 0 && at < chunk.length) chunk[at] = ~(chunk[at] ?? 0) & 0xff
}
