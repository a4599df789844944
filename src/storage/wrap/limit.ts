import { systemTime, type Time } from '#base/time'
import type {
  GetOptions,
  ListOptions,
  ObjectInfo,
  PutOptions,
  Storage,
  StreamOptions,
} from '../storage.ts'

export type Limits = {
  readonly uploadBytesPerSecond?: number | undefined
  readonly downloadBytesPerSecond?: number | undefined
}

/**
 * The same store with bounded bandwidth, shared by all its calls. Streams are paced chunk by chunk;
 * an object that is put whole waits for its share first and then goes out at once, so that a burst
 * is at most one object.
 */
export function withLimit(storage: Storage, limits: Limits, time: Time = systemTime): Storage {
  return new LimitStorage(storage, limits, time)
}

/** Hands out bytes at a rate, in the order of asking. What was not used within a second is lost. */
export class Bandwidth {
  readonly #bytesPerMs: number
  readonly #time: Time
  #freeAtMs: number

  constructor(bytesPerSecond: number, time: Time) {
    this.#bytesPerMs = bytesPerSecond / 1000
    this.#time = time
    this.#freeAtMs = time.monotonicMs() - burstMs
  }

  async take(sizeBytes: number, signal: AbortSignal | undefined): Promise<void> {
    const now = this.#time.monotonicMs()
    this.#freeAtMs = Math.max(this.#freeAtMs, now - burstMs) + sizeBytes / this.#bytesPerMs
    if (this.#freeAtMs > now) await this.#time.sleep(this.#freeAtMs - now, signal)
  }
}

const burstMs = 1000

class LimitStorage implements Storage {
  readonly #inner: Storage
  readonly #upload: Bandwidth | undefined
  readonly #download: Bandwidth | undefined

  constructor(inner: Storage, limits: Limits, time: Time) {
    const { uploadBytesPerSecond: up, downloadBytesPerSecond: down } = limits
    this.#inner = inner
    this.#upload = up === undefined ? undefined : new Bandwidth(up, time)
    this.#download = down === undefined ? undefined : new Bandwidth(down, time)
  }

  get url(): string {
    return this.#inner.url
  }

  get can(): Storage['can'] {
    return this.#inner.can
  }

  async put(
    key: string,
    parts: Uint8Array | readonly Uint8Array[],
    options?: PutOptions,
  ): Promise<void> {
    const list = parts instanceof Uint8Array ? [parts] : parts
    const sizeBytes = list.reduce((sum, part) => sum + part.length, 0)
    await this.#upload?.take(sizeBytes, options?.signal)
    await this.#inner.put(key, parts, options)
  }

  putStream(key: string, source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void> {
    return this.#inner.putStream(key, paced(source, this.#upload, options?.signal), options)
  }

  async get(key: string, options: GetOptions = {}): Promise<Buffer> {
    const bytes = await this.#inner.get(key, options)
    await this.#download?.take(bytes.length, options.signal)
    return bytes
  }

  stream(key: string, options?: StreamOptions): AsyncIterable<Buffer> {
    return paced(this.#inner.stream(key, options), this.#download, options?.signal)
  }

  stat(
    key: string,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<ObjectInfo | undefined> {
    return this.#inner.stat(key, options)
  }

  list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo> {
    return this.#inner.list(prefix, options)
  }

  delete(key: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<void> {
    return this.#inner.delete(key, options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]()
  }
}

async function* paced<T extends Uint8Array>(
  source: AsyncIterable<T>,
  bandwidth: Bandwidth | undefined,
  signal: AbortSignal | undefined,
): AsyncGenerator<T, void, void> {
  for await (const chunk of source) {
    await bandwidth?.take(chunk.length, signal)
    yield chunk
  }
}
