import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { Readable } from 'node:stream'
import { S3Client } from '@aws-sdk/client-s3'
import { defaultProvider } from '@aws-sdk/credential-provider-node'
import { NodeHttpHandler } from '@smithy/node-http-handler'
import type { S3Place } from './place.ts'

export type S3Credentials = {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

export type S3Timeouts = {
  readonly connectMs: number
  /** A connection on which nothing has moved for so long is given up. */
  readonly idleMs: number
}

export const defaultTimeouts: S3Timeouts = { connectMs: 10_000, idleMs: 90_000 }

const sliceBytes = 128 * 1024
const metadataTimeoutMs = 2000

/**
 * The client of one place: one try a call, its sockets kept alive; whoever calls bounds their
 * number.
 */
export function createClient(
  place: S3Place,
  timeouts: S3Timeouts,
  credentials: S3Credentials | undefined,
): S3Client {
  const endpoint =
    place.endpoint ?? process.env['AWS_ENDPOINT_URL_S3'] ?? process.env['AWS_ENDPOINT_URL']
  const region = place.region ?? process.env['AWS_REGION'] ?? process.env['AWS_DEFAULT_REGION']
  return new S3Client({
    maxAttempts: 1,
    forcePathStyle: place.pathStyle ?? endpoint !== undefined,
    credentials: credentials
      ? definedOnly(credentials)
      : defaultProvider({
          timeout: metadataTimeoutMs,
          maxRetries: 1,
          ...(place.profile === undefined ? {} : { profile: place.profile }),
        }),
    // Most stores beside AWS take any region, and want some; AWS's own is found in its files.
    ...(region ? { region } : endpoint ? { region: 'us-east-1' } : {}),
    ...(endpoint ? { endpoint } : {}),
    ...(place.profile ? { profile: place.profile } : {}),
    // Each request's body is signed by its SHA-256, which the store verifies. The newer checksum
    // headers and trailers on top are refused by some stores.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Waiting for `100 Continue` costs a round trip for each body, and some stores never send it.
    expectContinueHeader: false,
    requestHandler: new SlicingHandler({
      connectionTimeout: timeouts.connectMs,
      socketTimeout: timeouts.idleMs,
      httpAgent: new HttpAgent({ keepAlive: true }),
      httpsAgent: new HttpsAgent({ keepAlive: true }),
      logger: quiet,
    }),
    logger: quiet,
  })
}

/**
 * Sends a body slice by slice. Given as one piece, a large body on a slow line looks like a
 * connection on which nothing moves, since the socket tells only when a piece has left it.
 */
class SlicingHandler extends NodeHttpHandler {
  override handle(
    request: Parameters<NodeHttpHandler['handle']>[0],
    options?: Parameters<NodeHttpHandler['handle']>[1],
  ): ReturnType<NodeHttpHandler['handle']> {
    const body: unknown = request.body
    if (body instanceof Uint8Array && body.length > sliceBytes) {
      request.body = Readable.from(slices(body), { objectMode: false })
    }
    return super.handle(request, options)
  }
}

function* slices(body: Uint8Array): Generator<Uint8Array, void, void> {
  for (let at = 0; at < body.length; at += sliceBytes) yield body.subarray(at, at + sliceBytes)
}

function definedOnly({ accessKeyId, secretAccessKey, sessionToken }: S3Credentials) {
  return { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) }
}

/** What goes wrong comes as an error; the client's own remarks are not for the terminal. */
const quiet = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}

/** Lets so many run at a time; the others wait their turn. */
export class Slots {
  readonly #waiting: (() => void)[] = []
  #free: number

  constructor(count: number) {
    this.#free = count
  }

  async take(signal: AbortSignal | undefined): Promise<Disposable> {
    signal?.throwIfAborted()
    if (this.#free > 0) this.#free -= 1
    else await this.#turn(signal)
    return { [Symbol.dispose]: () => this.#release() }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1)
        reject(signal?.reason)
      }
      const go = () => {
        signal?.removeEventListener('abort', abort)
        resolve()
      }
      signal?.addEventListener('abort', abort, { once: true })
      this.#waiting.push(go)
    })
  }

  #release(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#free += 1
  }
}
