import { isFault } from '#base/faults'
import { defaultRetry, retry, type RetryPolicy } from '#base/retry'
import type {
  GetOptions,
  ListOptions,
  ObjectInfo,
  PutOptions,
  Storage,
  StreamOptions,
} from '../storage.ts'

/**
 * The same store, each call tried again while its Fault says so, with jitter and a named maximum. A
 * stream goes on at the byte where it broke and a listing behind its last key; any progress starts
 * the count of tries afresh. `putStream` is passed on as it is: its source can be read only once,
 * so that the store itself has to repeat a part. A conditional put that is answered with `exists`
 * on a second try is a success when the object holds our very bytes: the first try had arrived, and
 * only its answer was lost.
 */
export function withRetry(storage: Storage, policy: RetryPolicy = defaultRetry): Storage {
  return new RetryStorage(storage, policy)
}

class RetryStorage implements Storage {
  readonly #inner: Storage
  readonly #policy: RetryPolicy

  constructor(inner: Storage, policy: RetryPolicy) {
    this.#inner = inner
    this.#policy = policy
  }

  get url(): string {
    return this.#inner.url
  }

  get can(): Storage['can'] {
    return this.#inner.can
  }

  put(
    key: string,
    parts: Uint8Array | readonly Uint8Array[],
    options: PutOptions = {},
  ): Promise<void> {
    return retry(this.#policy, options.signal, async (tries) => {
      try {
        await this.#inner.put(key, parts, options)
      } catch (error) {
        const doubtful = options.ifAbsent && tries > 1 && isFault(error, 'exists')
        if (!doubtful || !(await this.#holds(key, parts, options.signal))) throw error
      }
    })
  }

  async #holds(
    key: string,
    parts: Uint8Array | readonly Uint8Array[],
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const wanted = Buffer.concat(parts instanceof Uint8Array ? [parts] : parts)
    const found = await this.#inner.stat(key, { signal })
    if (found?.sizeBytes !== wanted.length) return false
    return wanted.equals(await this.#inner.get(key, { signal }))
  }

  putStream(key: string, source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void> {
    return this.#inner.putStream(key, source, options)
  }

  get(key: string, options: GetOptions = {}): Promise<Buffer> {
    return retry(this.#policy, options.signal, () => this.#inner.get(key, options))
  }

  async *stream(key: string, options: StreamOptions = {}): AsyncGenerator<Buffer, void, void> {
    let start = options.start ?? 0
    for await (const chunk of this.#resume(options.signal, () =>
      this.#inner.stream(key, { start, signal: options.signal }),
    )) {
      start += chunk.length
      yield chunk
    }
  }

  stat(
    key: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<ObjectInfo | undefined> {
    return retry(this.#policy, options.signal, () => this.#inner.stat(key, options))
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, void> {
    let after = options.after
    for await (const info of this.#resume(options.signal, () =>
      this.#inner.list(prefix, {
        ...(after === undefined ? {} : { after }),
        signal: options.signal,
      }),
    )) {
      after = info.key
      yield info
    }
  }

  delete(key: string, options: { readonly signal?: AbortSignal | undefined } = {}): Promise<void> {
    return retry(this.#policy, options.signal, () => this.#inner.delete(key, options))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]()
  }

  /**
   * Reads what `open` gives; after a failure opens again, which must go on behind what was yielded.
   */
  async *#resume<T>(
    signal: AbortSignal | undefined,
    open: () => AsyncIterable<T>,
  ): AsyncGenerator<T, void, void> {
    let iterator: AsyncIterator<T> | undefined
    try {
      for (;;) {
        const next = await retry(this.#policy, signal, async () => {
          iterator ??= open()[Symbol.asyncIterator]()
          try {
            return await iterator.next()
          } catch (error) {
            iterator = undefined
            throw error
          }
        })
        if (next.done) return
        yield next.value
      }
    } finally {
      await iterator?.return?.()
    }
  }
}
