import { Fault } from '#base/faults'
import { checkKey, checkPrefix, checkRange } from '../key.ts'
import type {
  GetOptions,
  ListOptions,
  ObjectInfo,
  PutOptions,
  Storage,
  StreamOptions,
} from '../storage.ts'

type Stored = {
  readonly bytes: Buffer
  readonly modifiedMs: number
  readonly retainUntilMs: number
}

export type MemOptions = {
  readonly conditionalPut?: boolean | undefined
  readonly retention?: boolean | undefined
  readonly now?: (() => number) | undefined
}

const chunkBytes = 64 * 1024

/** Object storage in this process's memory, with every capability: for tests and simulations. */
export class MemStorage implements Storage {
  readonly url = 'mem:'
  readonly can: Storage['can']
  readonly #now: () => number
  readonly #objects: Map<string, Stored>

  constructor(options: MemOptions = {}, objects: Iterable<[string, Stored]> = []) {
    this.can = {
      conditionalPut: options.conditionalPut ?? true,
      retention: options.retention ?? true,
    }
    this.#now = options.now ?? Date.now
    this.#objects = new Map(objects)
  }

  /** A store of its own with the same objects: what a crash left, to be looked at from there on. */
  copy(): MemStorage {
    return new MemStorage({ ...this.can, now: this.#now }, this.#objects)
  }

  async put(
    key: string,
    parts: Uint8Array | readonly Uint8Array[],
    options: PutOptions = {},
  ): Promise<void> {
    checkKey(key)
    options.signal?.throwIfAborted()
    this.#checkCan(key, options)
    if (options.ifAbsent && this.#objects.has(key)) {
      throw new Fault('exists', `put ${key} to ${this.url}: object is there already`)
    }
    this.#objects.set(key, {
      bytes: Buffer.concat(parts instanceof Uint8Array ? [parts] : parts),
      modifiedMs: this.#now(),
      retainUntilMs: options.retainUntilMs ?? 0,
    })
  }

  async putStream(
    key: string,
    source: AsyncIterable<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    checkKey(key)
    this.#checkCan(key, options)
    const parts: Uint8Array[] = []
    for await (const part of source) {
      options.signal?.throwIfAborted()
      parts.push(Buffer.from(part))
    }
    await this.put(key, parts, options)
  }

  async get(key: string, options: GetOptions = {}): Promise<Buffer> {
    options.signal?.throwIfAborted()
    const { bytes } = this.#read(key)
    const { start = 0, end = bytes.length } = options
    checkRange(`${key} from ${this.url}`, { start, end }, bytes.length)
    return Buffer.from(bytes.subarray(start, end))
  }

  async *stream(key: string, options: StreamOptions = {}): AsyncGenerator<Buffer, void, void> {
    const { bytes } = this.#read(key)
    const { start = 0, signal } = options
    checkRange(
      `${key} from ${this.url}`,
      { start, end: Math.max(start, bytes.length) },
      bytes.length,
    )
    for (let at = start; at < bytes.length; at += chunkBytes) {
      signal?.throwIfAborted()
      yield Buffer.from(bytes.subarray(at, at + chunkBytes))
    }
  }

  async stat(
    key: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<ObjectInfo | undefined> {
    checkKey(key)
    options.signal?.throwIfAborted()
    const found = this.#objects.get(key)
    return found && { key, sizeBytes: found.bytes.length, modifiedMs: found.modifiedMs }
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, void> {
    checkPrefix(prefix)
    const { after = '', signal } = options
    signal?.throwIfAborted()
    // Keys are ASCII, so that the order of UTF-16 units is the order of bytes.
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(prefix) && key > after)
    for (const key of keys.toSorted()) {
      signal?.throwIfAborted()
      const found = this.#objects.get(key)
      if (found) yield { key, sizeBytes: found.bytes.length, modifiedMs: found.modifiedMs }
    }
  }

  async delete(
    key: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    checkKey(key)
    options.signal?.throwIfAborted()
    const found = this.#objects.get(key)
    if (found && found.retainUntilMs > this.#now()) {
      const until = new Date(found.retainUntilMs).toISOString()
      throw new Fault('denied', `delete ${key} from ${this.url}: retained until ${until}`)
    }
    this.#objects.delete(key)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing to give back: the objects go with the process.
  }

  #read(key: string): Stored {
    checkKey(key)
    const found = this.#objects.get(key)
    if (!found) throw new Fault('missing', `read ${key} from ${this.url}: no such object`)
    return found
  }

  #checkCan(key: string, options: PutOptions): void {
    if (options.ifAbsent && !this.can.conditionalPut) {
      throw new Fault('unsupported', `put ${key} to ${this.url}: no conditional put here`)
    }
    if (options.retainUntilMs !== undefined && !this.can.retention) {
      throw new Fault('unsupported', `put ${key} to ${this.url}: no retention here`)
    }
  }
}
