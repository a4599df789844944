import type { ObjectInfo, PutOptions, Storage } from '../storage.ts'

/**
 * The same store, read as it is, where every change is accepted and forgotten: for dry runs, which
 * do all the work but the storing. What was put cannot be read back.
 */
export function withoutWrites(storage: Storage): Storage {
  return new DiscardStorage(storage)
}

/** Whether the store forgets what is put into it. */
export function discardsWrites(storage: Storage): boolean {
  return storage instanceof DiscardStorage
}

class DiscardStorage implements Storage {
  readonly #inner: Storage

  constructor(inner: Storage) {
    this.#inner = inner
  }

  get url(): string {
    return this.#inner.url
  }

  get can(): Storage['can'] {
    return this.#inner.can
  }

  async put(
    _key: string,
    _parts: Uint8Array | readonly Uint8Array[],
    options?: PutOptions,
  ): Promise<void> {
    options?.signal?.throwIfAborted()
  }

  async putStream(
    _key: string,
    source: AsyncIterable<Uint8Array>,
    options?: PutOptions,
  ): Promise<void> {
    for await (const _piece of source) options?.signal?.throwIfAborted()
  }

  get(key: string, options?: Parameters<Storage['get']>[1]): Promise<Buffer> {
    return this.#inner.get(key, options)
  }

  stream(key: string, options?: Parameters<Storage['stream']>[1]): AsyncIterable<Buffer> {
    return this.#inner.stream(key, options)
  }

  stat(key: string, options?: Parameters<Storage['stat']>[1]): Promise<ObjectInfo | undefined> {
    return this.#inner.stat(key, options)
  }

  list(prefix: string, options?: Parameters<Storage['list']>[1]): AsyncIterable<ObjectInfo> {
    return this.#inner.list(prefix, options)
  }

  async delete(_key: string, options?: Parameters<Storage['delete']>[1]): Promise<void> {
    options?.signal?.throwIfAborted()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]()
  }
}
