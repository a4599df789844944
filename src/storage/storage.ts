/** One stored object, as a listing tells of it. */
export type ObjectInfo = {
  readonly key: string
  readonly sizeBytes: number
  readonly modifiedMs: number
}

export type PutOptions = {
  readonly signal?: AbortSignal | undefined
  /** Fail with `exists` when the key is there already; only where `can.conditionalPut`. */
  readonly ifAbsent?: boolean | undefined
  /** Forbid deletion and overwriting until then (milliseconds since 1970); only where `can.retention`. */
  readonly retainUntilMs?: number | undefined
}

/**
 * Object storage: named, immutable runs of bytes under one prefix. Keys are relative, `/` between their parts,
 * of `[A-Za-z0-9._=+-]`. Every method may be called concurrently. Foreign errors arrive as Faults:
 * `unreachable`, `throttled`, `denied`, `missing`, `exists`, `full`, `corrupt`, `timeout`, `io`.
 * No method retries; `withRetry` (storage/wrap) does. A failed listing throws: it never looks like an empty one.
 */
export interface Storage extends AsyncDisposable {
  /** For messages: no credentials in it. */
  readonly url: string
  readonly can: {
    readonly conditionalPut: boolean
    readonly retention: boolean
  }

  /**
   * Stores the parts, joined, under the key: atomically, durable when the call returns.
   * An existing object is replaced. Calling again with the same bytes is harmless.
   */
  put(key: string, parts: Uint8Array | readonly Uint8Array[], options?: PutOptions): Promise<void>

  /** Like `put`, for what does not fit in memory: reads `source` to its end, in parts uploaded in parallel. */
  putStream(key: string, source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void>

  /** The bytes `[start, end)` of an object, all of it by default. A short answer is an `unreachable` Fault, never returned. */
  get(
    key: string,
    options?: {
      readonly start?: number
      readonly end?: number
      readonly signal?: AbortSignal | undefined
    },
  ): Promise<Buffer>

  /** The object from `start` on, as it arrives; breaking off frees the connection. A short object throws. */
  stream(
    key: string,
    options?: { readonly start?: number; readonly signal?: AbortSignal | undefined },
  ): AsyncIterable<Buffer>

  /** Facts of one object; undefined when it is not there. */
  stat(
    key: string,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<ObjectInfo | undefined>

  /** All objects whose keys start with `prefix`, in ascending byte order of keys, those after `after` only. */
  list(
    prefix: string,
    options?: { readonly after?: string; readonly signal?: AbortSignal | undefined },
  ): AsyncIterable<ObjectInfo>

  /** Removes the object; one that is not there is no error. */
  delete(key: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<void>
}
