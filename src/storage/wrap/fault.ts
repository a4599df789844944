import { Fault, type Code } from '#base/faults'
import { seededRandom } from '#base/random'
import type {
  GetOptions,
  ListOptions,
  ObjectInfo,
  PutOptions,
  Storage,
  StreamOptions,
} from '../storage.ts'

export type OperationKind = 'put' | 'putStream' | 'get' | 'stream' | 'stat' | 'list' | 'delete'

/** One call of a storage method; for a listing `key` is its prefix. */
export type Operation = {
  readonly index: number
  readonly kind: OperationKind
  readonly key: string
}

export type FaultOptions = {
  readonly seed?: number | undefined
  /** The share of calls that fail, from 0 to 1. */
  readonly rate?: number | undefined
  /** Which calls may fail; by default all. */
  readonly hits?: ((kind: OperationKind) => boolean) | undefined
  /** The process dies at the operation of this index: it, and all later ones, throw a `Crash`. */
  readonly crashAt?: number | undefined
  /** Whether that operation took effect; `before` by default. */
  readonly crashWhen?: 'before' | 'after' | undefined
  /** Which operations are counted and may crash; by default those that write. */
  readonly counts?: ((kind: OperationKind) => boolean) | undefined
  /** Objects written within the last so many operations are not in listings yet. */
  readonly listsLate?: number | undefined
  /** Puts that would take the sum of the objects written here above that fail as `full`. */
  readonly capacityBytes?: number | undefined
}

/**
 * What a caller sees of its own death by `kill -9`: not a Fault, so that nothing retries or handles
 * it.
 */
export class Crash extends Error {
  override readonly name = 'Crash'
}

/** The same store with seeded faults: see `FaultOptions`. Without options it only counts. */
export function withFaults(storage: Storage, options: FaultOptions = {}): FaultyStorage {
  return new FaultyStorage(storage, options)
}

const writes = (kind: OperationKind): boolean =>
  kind === 'put' || kind === 'putStream' || kind === 'delete'

const codes: readonly Code[] = ['unreachable', 'throttled', 'timeout']

export class FaultyStorage implements Storage {
  /**
   * The counted operations so far, in order: run once without a crash to learn how many there are.
   */
  readonly operations: Operation[] = []
  readonly #inner: Storage
  readonly #options: FaultOptions
  readonly #random: () => number
  readonly #written = new Map<string, { readonly at: number; readonly sizeBytes: number }>()
  #calls = 0
  #crashed = false

  constructor(inner: Storage, options: FaultOptions) {
    this.#inner = inner
    this.#options = options
    this.#random = seededRandom(options.seed ?? 1)
  }

  get url(): string {
    return this.#inner.url
  }

  get can(): Storage['can'] {
    return this.#inner.can
  }

  put(key: string, parts: Uint8Array | readonly Uint8Array[], options?: PutOptions): Promise<void> {
    const list = parts instanceof Uint8Array ? [parts] : parts
    const sizeBytes = list.reduce((sum, part) => sum + part.length, 0)
    return this.#call('put', key, async () => {
      this.#checkRoom(key, sizeBytes)
      await this.#inner.put(key, parts, options)
      this.#written.set(key, { at: this.#calls, sizeBytes })
    })
  }

  putStream(key: string, source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void> {
    let sizeBytes = 0
    const checkRoom = () => this.#checkRoom(key, sizeBytes)
    async function* measured() {
      for await (const chunk of source) {
        sizeBytes += chunk.length
        checkRoom()
        yield chunk
      }
    }
    return this.#call('putStream', key, async () => {
      await this.#inner.putStream(key, measured(), options)
      this.#written.set(key, { at: this.#calls, sizeBytes })
    })
  }

  get(key: string, options?: GetOptions): Promise<Buffer> {
    return this.#call('get', key, () => this.#inner.get(key, options))
  }

  async *stream(key: string, options?: StreamOptions): AsyncGenerator<Buffer, void, void> {
    const fault = await this.#begin('stream', key)
    for await (const chunk of this.#inner.stream(key, options)) {
      this.#checkAlive('stream', key)
      // The cut comes within a chunk, so that a caller who counts chunks instead of bytes is found
      // out.
      if (fault && chunk.length > 1) yield chunk.subarray(0, 1 + (chunk.length >> 1))
      if (fault) throw fault
      yield chunk
    }
    if (fault) throw fault
  }

  stat(
    key: string,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<ObjectInfo | undefined> {
    return this.#call('stat', key, () => this.#inner.stat(key, options))
  }

  async *list(prefix: string, options?: ListOptions): AsyncGenerator<ObjectInfo, void, void> {
    const fault = await this.#begin('list', prefix)
    let breaksAfter = fault ? Math.floor(this.#random() * 20) : Number.POSITIVE_INFINITY
    for await (const info of this.#inner.list(prefix, options)) {
      this.#checkAlive('list', prefix)
      if (fault && breaksAfter-- <= 0) throw fault
      const writtenAt = this.#written.get(info.key)?.at ?? Number.NEGATIVE_INFINITY
      if (writtenAt <= this.#calls - (this.#options.listsLate ?? 0)) yield info
    }
    if (fault) throw fault
  }

  delete(key: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<void> {
    return this.#call('delete', key, async () => {
      await this.#inner.delete(key, options)
      this.#written.delete(key)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]()
  }

  async #call<T>(kind: OperationKind, key: string, work: () => Promise<T>): Promise<T> {
    const index = this.operations.length
    const fault = await this.#begin(kind, key)
    const counted = this.operations.length > index
    const dies = counted && index === this.#options.crashAt
    // Half of the faults lose the request, half only the answer: then the work was done.
    if (fault && (!writes(kind) || this.#random() < 0.5)) throw fault
    const result = await work()
    if (dies) this.#crash(kind, key)
    this.#checkAlive(kind, key)
    if (fault) throw fault
    return result
  }

  /** Counts the call; returns the fault that it shall end with, if any. */
  async #begin(kind: OperationKind, key: string): Promise<Fault | undefined> {
    this.#checkAlive(kind, key)
    this.#calls += 1
    const { rate = 0, hits, crashAt, crashWhen = 'before', counts = writes } = this.#options
    if (counts(kind)) {
      const index = this.operations.length
      this.operations.push({ index, kind, key })
      const streams = kind === 'stream' || kind === 'list'
      if (index === crashAt && (crashWhen === 'before' || streams)) this.#crash(kind, key)
    }
    if (rate === 0 || hits?.(kind) === false || this.#random() >= rate) return undefined
    const code = codes[Math.floor(this.#random() * codes.length)] ?? 'unreachable'
    return new Fault(code, `${kind} ${key} at ${this.url}: injected fault`)
  }

  #crash(kind: OperationKind, key: string): never {
    this.#crashed = true
    throw new Crash(`died at ${kind} ${key}`)
  }

  #checkAlive(kind: OperationKind, key: string): void {
    if (this.#crashed) throw new Crash(`called ${kind} ${key} after the crash`)
  }

  #checkRoom(key: string, sizeBytes: number): void {
    const { capacityBytes } = this.#options
    if (capacityBytes === undefined) return
    let sum = sizeBytes
    for (const [other, info] of this.#written) if (other !== key) sum += info.sizeBytes
    if (sum > capacityBytes) throw new Fault('full', `put ${key} to ${this.url}: injected limit`)
  }
}
