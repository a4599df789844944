import type { Storage } from '#storage'
import type { BlobIndex } from './index/blob-index.ts'
import type { IndexWriter } from './index/index-writer.ts'
import { packKey } from './pack.ts'
import type { FinishedPack } from './packer.ts'

/** Packs on their way to the store at a time. */
export const uploadsMax = 3

/** Stores packs, a few at a time, and enters each into the index once it is durable. */
export class PackUploads {
  readonly #storage: Storage
  readonly #index: BlobIndex
  readonly #writer: IndexWriter
  readonly #signal: AbortSignal
  readonly #running = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined

  constructor(options: {
    readonly storage: Storage
    readonly index: BlobIndex
    readonly writer: IndexWriter
    readonly signal: AbortSignal
  }) {
    this.#storage = options.storage
    this.#index = options.index
    this.#writer = options.writer
    this.#signal = options.signal
  }

  /** Throws what an upload failed with. */
  check(): void {
    if (this.#failure) throw this.#failure.error
    this.#signal.throwIfAborted()
  }

  /** Starts an upload, or does nothing after one failed; `done` runs when the bytes are no longer needed. */
  start(pack: FinishedPack, done?: () => void): void {
    const upload = this.#upload(pack)
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        this.#running.delete(upload)
        done?.()
      })
    this.#running.add(upload)
  }

  async #upload({ id, bytes, blobs }: FinishedPack): Promise<void> {
    this.check()
    await this.#storage.put(packKey(id), bytes, { signal: this.#signal })
    this.#index.addPack({ id, blobs })
    await this.#writer.add({ id, blobs })
  }

  /** Waits until fewer than the most uploads are running. */
  async room(): Promise<void> {
    while (this.#running.size >= uploadsMax) await Promise.race(this.#running)
    this.check()
  }

  /** Waits for all uploads, whether they succeed or not. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }
}
