import {
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadBucketCommand,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3'
import { Fault, isFault } from '#base/faults'
import { defaultRetry, retry, type RetryPolicy } from '#base/retry'
import { checkKey, checkPrefix, checkRange, isKey } from '../key.ts'
import type {
  GetOptions,
  ListOptions,
  ObjectInfo,
  PutOptions,
  Storage,
  StreamOptions,
} from '../storage.ts'
import { checkListing, checkTag, fromS3 } from './answer.ts'
import { readBody } from './body.ts'
import {
  createClient,
  defaultTimeouts,
  type S3Credentials,
  type S3Timeouts,
  Slots,
} from './connection.ts'
import { Multipart } from './multipart.ts'
import { parseS3Url, type S3Place } from './place.ts'
import { probePlace } from './probe.ts'
import { putRequest } from './request.ts'

/** Connections at a time for calls, and as many again for objects that are being read. */
const connectionsMax = 64

export type S3Options = {
  readonly credentials?: S3Credentials | undefined
  /**
   * For what this store has to repeat itself: the probes of opening, and the parts of a
   * `putStream`.
   */
  readonly retry?: RetryPolicy | undefined
  readonly timeouts?: S3Timeouts | undefined
  readonly signal?: AbortSignal | undefined
  readonly now?: (() => number) | undefined
}

/**
 * Object storage in an S3 bucket. Asks the store for the bucket, and tries what it can do:
 * conditional puts, leaving the verdict in a small object of its own, `.redoubt-probe`, and the
 * bucket's object lock.
 */
export async function openS3Storage(url: string, options: S3Options = {}): Promise<Storage> {
  const place = parseS3Url(url)
  const policy = options.retry ?? defaultRetry
  const client = createClient(place, options.timeouts ?? defaultTimeouts, options.credentials)
  try {
    const can = await retry(policy, options.signal, () => probePlace(client, place, options.signal))
    // The client measures how far this machine's clock is from the store's.
    const own = options.now ?? Date.now
    const now = () => own() + client.config.systemClockOffset
    return new S3Storage({ client, place, can, retry: policy, now })
  } catch (error) {
    client.destroy()
    throw error
  }
}

class S3Storage implements Storage {
  readonly url: string
  readonly can: Storage['can']
  readonly #client: S3Client
  readonly #place: S3Place
  readonly #now: () => number
  readonly #multipart: Multipart
  readonly #calls = new Slots(connectionsMax)
  readonly #reads = new Slots(connectionsMax)

  constructor(parts: {
    readonly client: S3Client
    readonly place: S3Place
    readonly can: Storage['can']
    readonly retry: RetryPolicy
    readonly now: () => number
  }) {
    this.url = parts.place.url
    this.can = parts.can
    this.#client = parts.client
    this.#place = parts.place
    this.#now = parts.now
    this.#multipart = new Multipart({
      ...parts,
      locked: parts.can.retention,
      slots: this.#calls,
    })
  }

  async put(
    key: string,
    parts: Uint8Array | readonly Uint8Array[],
    options: PutOptions = {},
  ): Promise<void> {
    checkKey(key)
    const doing = this.#doing('put', key)
    this.#checkCan(doing, options)
    const request = putRequest(this.#place, key, {
      body: joined(parts),
      options,
      locked: this.can.retention,
    })
    const answer = await this.#call(doing, options.signal, () =>
      this.#client.send(new PutObjectCommand(request), abortable(options.signal)),
    )
    checkTag(answer, doing)
  }

  async putStream(
    key: string,
    source: AsyncIterable<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    checkKey(key)
    const doing = this.#doing('put', key)
    this.#checkCan(doing, options)
    await this.#multipart.put(key, source, { options, doing })
  }

  async get(key: string, options: GetOptions = {}): Promise<Buffer> {
    checkKey(key)
    const { start = 0, end, signal } = options
    const doing = this.#doing('read', key)
    const range = { start, end: end ?? Math.max(start, Number.MAX_SAFE_INTEGER) }
    checkRange(doing, range, Number.MAX_SAFE_INTEGER)
    if (end === start) {
      await this.#readNothing(key, start, signal)
      return Buffer.alloc(0)
    }
    using _ = await this.#reads.take(signal)
    const body = await this.#open(key, { start, end, signal })
    if (!body) return Buffer.alloc(0)
    const bytes = Buffer.allocUnsafeSlow(body.sizeBytes)
    let at = 0
    for await (const chunk of body.chunks) {
      chunk.copy(bytes, at)
      at += chunk.length
    }
    return bytes
  }

  async *stream(key: string, options: StreamOptions = {}): AsyncGenerator<Buffer, void, void> {
    checkKey(key)
    const { start = 0, signal } = options
    using _ = await this.#reads.take(signal)
    const body = await this.#open(key, { start, end: undefined, signal })
    if (body) yield* body.chunks
  }

  async stat(
    key: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<ObjectInfo | undefined> {
    checkKey(key)
    const head = await this.#head(key, options.signal)
    if (!head) return undefined
    const doing = this.#doing('stat', key)
    checkTag(head, doing)
    if (head.ContentLength === undefined) {
      throw new Fault('unreachable', `${doing}: no size in the answer`)
    }
    const modifiedMs = head.LastModified?.getTime() ?? 0
    return { key, sizeBytes: head.ContentLength, modifiedMs }
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, void> {
    checkPrefix(prefix)
    const { after = '', signal } = options
    const doing = this.#doing('list', prefix)
    const base = this.#place.prefix
    let last = after
    let token: string | undefined
    do {
      const page = await this.#call(doing, signal, () =>
        this.#client.send(
          new ListObjectsV2Command({
            Bucket: this.#place.bucket,
            Prefix: base + prefix,
            ...(token ? { ContinuationToken: token } : after ? { StartAfter: base + after } : {}),
          }),
          abortable(signal),
        ),
      )
      checkListing(page, doing)
      for (const { Key: name = '', Size: sizeBytes, LastModified: modified } of page.Contents ??
        []) {
        const key = name.startsWith(base) ? name.slice(base.length) : ''
        // What somebody else put beside ours, and our own probe.
        if (!isKey(key)) continue
        if (key <= last || sizeBytes === undefined || !modified) {
          throw new Fault('unreachable', `${doing}: entry ${key} after ${last} makes no sense`)
        }
        last = key
        yield { key, sizeBytes, modifiedMs: modified.getTime() }
      }
      token = page.IsTruncated ? page.NextContinuationToken : undefined
    } while (token)
  }

  async delete(
    key: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    checkKey(key)
    const { signal } = options
    const doing = this.#doing('delete', key)
    if (this.can.retention) await this.#checkUnlocked(key, signal)
    try {
      await this.#call(doing, signal, () =>
        this.#client.send(
          new DeleteObjectCommand({ Bucket: this.#place.bucket, Key: this.#place.prefix + key }),
          abortable(signal),
        ),
      )
    } catch (error) {
      // Most stores say nothing of a key that is not there, some answer 404; a lost bucket is
      // another matter.
      if (!isFault(error, 'missing')) throw error
      await this.#checkBucket(doing, signal)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy()
  }

  /** Opens an object for reading; undefined when nothing lies between `start` and its end. */
  async #open(
    key: string,
    wanted: {
      readonly start: number
      readonly end: number | undefined
      readonly signal: AbortSignal | undefined
    },
  ): Promise<{ sizeBytes: number; chunks: AsyncGenerator<Buffer, void, void> } | undefined> {
    const { start, end, signal } = wanted
    const doing = this.#doing('read', key)
    const whole = start === 0 && end === undefined
    const range = `bytes=${start}-${end === undefined ? '' : end - 1}`
    let answer: GetObjectCommandOutput
    try {
      signal?.throwIfAborted()
      answer = await this.#client.send(
        new GetObjectCommand({
          Bucket: this.#place.bucket,
          Key: this.#place.prefix + key,
          ...(whole ? {} : { Range: range }),
        }),
        abortable(signal),
      )
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'InvalidRange') {
        throw fromS3(error, doing, signal)
      }
      await this.#readNothing(key, end ?? start, signal)
      return undefined
    }
    return readBody(answer, { doing, start, end, whole, signal })
  }

  /** What is left of a read without bytes: the object must be there, and reach to that place. */
  async #readNothing(key: string, end: number, signal: AbortSignal | undefined): Promise<void> {
    const info = await this.stat(key, { signal })
    const doing = this.#doing('read', key)
    if (!info) throw new Fault('missing', `${doing}: no such object`)
    checkRange(doing, { start: end, end }, info.sizeBytes)
  }

  async #head(
    key: string,
    signal: AbortSignal | undefined,
  ): Promise<HeadObjectCommandOutput | undefined> {
    const doing = this.#doing('stat', key)
    try {
      return await this.#call(doing, signal, () =>
        this.#client.send(
          new HeadObjectCommand({ Bucket: this.#place.bucket, Key: this.#place.prefix + key }),
          abortable(signal),
        ),
      )
    } catch (error) {
      if (!isFault(error, 'missing')) throw error
      // An answer to HEAD has no body that could say whether it is the object or the bucket that is
      // missing.
      await this.#checkBucket(doing, signal)
      return undefined
    }
  }

  async #checkBucket(doing: string, signal: AbortSignal | undefined): Promise<void> {
    await this.#call(`${doing}: bucket`, signal, () =>
      this.#client.send(new HeadBucketCommand({ Bucket: this.#place.bucket }), abortable(signal)),
    )
  }

  /**
   * A delete only hides a locked version, and would succeed: what must be kept must stay in sight.
   */
  async #checkUnlocked(key: string, signal: AbortSignal | undefined): Promise<void> {
    const head = await this.#head(key, signal)
    const until = head?.ObjectLockRetainUntilDate
    if (until && until.getTime() > this.#now()) {
      throw new Fault('denied', `${this.#doing('delete', key)}: retained to ${until.toISOString()}`)
    }
    if (head?.ObjectLockLegalHoldStatus === 'ON') {
      throw new Fault('denied', `${this.#doing('delete', key)}: under a legal hold`)
    }
  }

  async #call<T>(
    doing: string,
    signal: AbortSignal | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    using _ = await this.#calls.take(signal)
    try {
      return await work()
    } catch (error) {
      throw fromS3(error, doing, signal)
    }
  }

  #doing(verb: string, key: string): string {
    return `${verb} ${this.#place.name}${key}`
  }

  #checkCan(doing: string, options: PutOptions): void {
    if (options.ifAbsent && !this.can.conditionalPut) {
      throw new Fault('unsupported', `${doing}: the store ignores If-None-Match`)
    }
    if (options.retainUntilMs !== undefined && !this.can.retention) {
      const hint = 'Object lock is switched on when a bucket is made.'
      throw new Fault('unsupported', `${doing}: the bucket has no object lock`, { hint })
    }
  }
}

/** One run of bytes, which is what can be signed; copied only if it is in pieces. */
function joined(parts: Uint8Array | readonly Uint8Array[]): Uint8Array {
  if (parts instanceof Uint8Array) return parts
  const [only] = parts
  return only && parts.length === 1 ? only : Buffer.concat(parts)
}

function abortable(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal ? { abortSignal: signal } : {}
}
