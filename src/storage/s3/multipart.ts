import { createHash } from 'node:crypto'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { Fault, isFault } from '#base/faults'
import { retry, type RetryPolicy } from '#base/retry'
import { tasks } from '#base/tasks'
import type { PutOptions } from '../storage.ts'
import { checkTag, fromS3 } from './answer.ts'
import type { Slots } from './connection.ts'
import type { S3Place } from './place.ts'
import { bodyDigest, newObject, putRequest } from './request.ts'

/** S3's own limit. */
const partsMax = 10_000
const partsAtATime = 4
const staleAfterMs = 48 * 3600 * 1000
const abortTimeoutMs = 10_000

export type MultipartOptions = {
  readonly client: S3Client
  readonly place: S3Place
  readonly locked: boolean
  readonly retry: RetryPolicy
  readonly slots: Slots
  readonly now: () => number
}

type Upload = {
  readonly key: string
  readonly id: string
  readonly doing: string
  readonly options: PutOptions
}

/** Stores streams of unknown length: small ones by a put, others in parts, some at a time. */
export class Multipart {
  readonly #client: S3Client
  readonly #place: S3Place
  readonly #locked: boolean
  readonly #retry: RetryPolicy
  readonly #slots: Slots
  readonly #now: () => number
  #swept: Promise<void> | undefined

  constructor(options: MultipartOptions) {
    this.#client = options.client
    this.#place = options.place
    this.#locked = options.locked
    this.#retry = options.retry
    this.#slots = options.slots
    this.#now = options.now
  }

  async put(
    key: string,
    source: AsyncIterable<Uint8Array>,
    { options, doing }: { readonly options: PutOptions; readonly doing: string },
  ): Promise<void> {
    options.signal?.throwIfAborted()
    const parts = cut(source, this.#place.partBytes, options.signal)
    const first = await parts.next()
    const begun = first.done || first.value.length < this.#place.partBytes
    if (begun) {
      // The cutter ends with the source, so that one short part is all there is.
      await parts.return()
      await this.#putWhole(key, first.done ? Buffer.alloc(0) : first.value, { options, doing })
      return
    }
    this.#swept ??= this.#sweep(options.signal)
    await this.#swept
    const id = await this.#begin(key, { options, doing })
    const upload = { key, id, doing, options }
    try {
      const sent = await this.#sendParts(upload, first.value, parts)
      await this.#complete(upload, sent)
    } catch (error) {
      await parts.return()
      await this.#abort(upload)
      throw error
    }
  }

  async #putWhole(
    key: string,
    body: Buffer,
    { options, doing }: { readonly options: PutOptions; readonly doing: string },
  ): Promise<void> {
    const request = putRequest(this.#place, key, { body, options, locked: this.#locked })
    await this.#again(doing, options.signal, async (signal, tries) => {
      try {
        checkTag(await this.#client.send(new PutObjectCommand(request), signal), doing)
      } catch (error) {
        const fault = fromS3(error, doing, options.signal)
        const mine = createHash('md5').update(body).digest('hex')
        const doubtful = tries > 1 && isFault(fault, 'exists')
        if (!doubtful || !(await this.#has(key, mine, body.length, signal))) throw fault
      }
    })
  }

  async #begin(
    key: string,
    { options, doing }: { readonly options: PutOptions; readonly doing: string },
  ): Promise<string> {
    const request = new CreateMultipartUploadCommand(newObject(this.#place, key, options))
    return this.#again(doing, options.signal, async (signal) => {
      const { UploadId } = await this.#client.send(request, signal)
      if (!UploadId) throw new Fault('unreachable', `${doing}: upload without an id`)
      return UploadId
    })
  }

  /** Sends what is cut, a few parts at a time; returns their tags in order, and the size of all. */
  async #sendParts(
    upload: Upload,
    first: Buffer,
    rest: AsyncGenerator<Buffer, void, void>,
  ): Promise<{ tags: string[]; sizeBytes: number }> {
    const tags: string[] = []
    let sizeBytes = 0
    await tasks(upload.options.signal, async (t) => {
      const busy = new Set<Promise<unknown>>()
      const send = async (part: Buffer) => {
        const index = tags.push('') - 1
        if (index >= partsMax) throw tooLarge(upload.doing, this.#place.partBytes)
        sizeBytes += part.length
        const job: Promise<unknown> = t
          .run(async (signal) => {
            tags[index] = await this.#sendPart(upload, { number: index + 1, part, signal })
          })
          .finally(() => busy.delete(job))
        // The group reports the failure; this only wakes the loop.
        job.catch(() => undefined)
        busy.add(job)
        if (busy.size >= partsAtATime) await Promise.race(busy)
      }
      await send(first)
      for await (const part of rest) {
        t.signal.throwIfAborted()
        await send(part)
      }
    })
    return { tags, sizeBytes }
  }

  async #sendPart(
    upload: Upload,
    { number, part, signal }: { number: number; part: Buffer; signal: AbortSignal },
  ): Promise<string> {
    const doing = `${upload.doing}, part ${number}`
    const request = new UploadPartCommand({
      Bucket: this.#place.bucket,
      Key: this.#place.prefix + upload.key,
      UploadId: upload.id,
      PartNumber: number,
      Body: part,
      ...bodyDigest(part, this.#locked),
    })
    return this.#again(doing, signal, async (abortable) =>
      checkTag(await this.#client.send(request, abortable), doing),
    )
  }

  async #complete(
    upload: Upload,
    sent: { readonly tags: readonly string[]; readonly sizeBytes: number },
  ): Promise<void> {
    const { key, doing, options } = upload
    const request = new CompleteMultipartUploadCommand({
      Bucket: this.#place.bucket,
      Key: this.#place.prefix + key,
      UploadId: upload.id,
      MultipartUpload: { Parts: sent.tags.map((ETag, i) => ({ ETag, PartNumber: i + 1 })) },
      ...(options.ifAbsent ? { IfNoneMatch: '*' } : {}),
    })
    await this.#again(doing, options.signal, async (signal, tries) => {
      try {
        checkTag(await this.#client.send(request, signal), doing)
      } catch (error) {
        // A try whose answer was lost has ended the upload; then the object is there, and is ours.
        const fault = fromS3(error, doing, options.signal)
        const gone = error instanceof Error && error.name === 'NoSuchUpload'
        const doubtful = tries > 1 && (gone || isFault(fault, 'exists'))
        if (!doubtful || !(await this.#has(key, wholeTag(sent.tags), sent.sizeBytes, signal))) {
          throw gone
            ? new Fault('unreachable', `${doing}: upload has gone`, { cause: error })
            : fault
        }
      }
    })
    const found = await this.#again(doing, options.signal, (signal) => this.#head(key, signal))
    if (found.ContentLength !== sent.sizeBytes) {
      const message = `${doing}: sent ${sent.sizeBytes} bytes, store has ${found.ContentLength}`
      throw new Fault('corrupt', message)
    }
  }

  /**
   * Whether the object is the one that was sent; a tag that is no digest of the content proves
   * nothing.
   */
  async #has(
    key: string,
    tag: string,
    sizeBytes: number,
    signal: { abortSignal?: AbortSignal },
  ): Promise<boolean> {
    const found = await this.#head(key, signal)
    return found.ContentLength === sizeBytes && found.ETag?.replaceAll('"', '') === tag
  }

  #head(key: string, signal: { abortSignal?: AbortSignal }) {
    const place = { Bucket: this.#place.bucket, Key: this.#place.prefix + key }
    return this.#client.send(new HeadObjectCommand(place), signal)
  }

  /**
   * Throws the parts of a failed upload away. That may fail as well, when the store is down: the
   * first failure is the one to be told, and a later sweep finds the parts.
   */
  async #abort(upload: Upload): Promise<void> {
    const request = new AbortMultipartUploadCommand({
      Bucket: this.#place.bucket,
      Key: this.#place.prefix + upload.key,
      UploadId: upload.id,
    })
    // The caller's signal may have caused this; the cleaning has a limit of its own.
    const abortSignal = AbortSignal.timeout(abortTimeoutMs)
    await this.#client.send(request, { abortSignal }).catch(() => undefined)
  }

  /**
   * Once a store: removes uploads that somebody began days ago and never ended, which cost money
   * unseen.
   */
  async #sweep(signal: AbortSignal | undefined): Promise<void> {
    const doing = `sweep uploads in ${this.#place.name}`
    const { bucket: Bucket, prefix: Prefix } = this.#place
    try {
      const answer = await this.#again(doing, signal, (abortable) =>
        this.#client.send(new ListMultipartUploadsCommand({ Bucket, Prefix }), abortable),
      )
      for (const { Key, UploadId, Initiated } of answer.Uploads ?? []) {
        if (!Key || !UploadId || !Initiated) continue
        if (this.#now() - Initiated.getTime() < staleAfterMs) continue
        const request = new AbortMultipartUploadCommand({ Bucket, Key, UploadId })
        await this.#again(doing, signal, (abortable) => this.#client.send(request, abortable))
      }
    } catch (error) {
      // Others may have swept, or we may not look at uploads at all: this upload can do without.
      if (!isFault(error, 'missing', 'denied', 'unsupported', 'usage')) throw error
    }
  }

  #again<T>(
    doing: string,
    signal: AbortSignal | undefined,
    work: (signal: { abortSignal?: AbortSignal }, tries: number) => Promise<T>,
  ): Promise<T> {
    return retry(this.#retry, signal, async (tries) => {
      using _ = await this.#slots.take(signal)
      try {
        return await work(signal ? { abortSignal: signal } : {}, tries)
      } catch (error) {
        throw fromS3(error, doing, signal)
      }
    })
  }
}

/** Cuts a stream into parts of exactly that size, but for the last one. */
async function* cut(
  source: AsyncIterable<Uint8Array>,
  partBytes: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer, void, void> {
  let part = Buffer.alloc(0)
  let filled = 0
  for await (const chunk of source) {
    signal?.throwIfAborted()
    for (let at = 0; at < chunk.length; ) {
      if (filled === part.length) {
        if (filled > 0) yield part
        part = Buffer.allocUnsafeSlow(partBytes)
        filled = 0
      }
      const piece = chunk.subarray(at, at + part.length - filled)
      part.set(piece, filled)
      filled += piece.length
      at += piece.length
    }
  }
  if (filled > 0) yield part.subarray(0, filled)
}

/** The tag of an object made of parts, as S3 forms it: a digest of the parts' digests. */
function wholeTag(tags: readonly string[]): string {
  const hash = createHash('md5')
  for (const tag of tags) hash.update(tag.replaceAll('"', ''), 'hex')
  return `${hash.digest('hex')}-${tags.length}`
}

function tooLarge(doing: string, partBytes: number): Fault {
  return new Fault('unsupported', `${doing}: more than ${partsMax} parts of ${partBytes} bytes`, {
    hint: 'Give larger parts by part-size= in the URL.',
  })
}
