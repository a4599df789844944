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
  /**
   * Keep these bytes until then (milliseconds since 1970), whoever asks; only where
   * `can.retention`. `delete` is refused as `denied`; an overwrite leaves them behind as an older
   * version.
   */
  readonly retainUntilMs?: number | undefined
}

export type GetOptions = {
  readonly start?: number
  readonly end?: number
  readonly signal?: AbortSignal | undefined
}

export type StreamOptions = Omit<GetOptions, 'end'>

export type ListOptions = { readonly after?: string; readonly signal?: AbortSignal | undefined }

/**
 * Object storage: named, immutable runs of bytes under one prefix. Keys are relative, of at most
 * 800 bytes, `/` between their parts, a part of `[A-Za-z0-9._=+-]`, at most 255 bytes, not `.` or
 * `..`, not beginning with `.redoubt-`; no key is the folder of another (`a` and `a/b`). What else
 * lies in the place is never listed.
 *
 * Every method may be called concurrently. Foreign errors arrive as Faults: `unreachable`,
 * `throttled`, `denied`, `missing`, `exists`, `conflict`, `full`, `corrupt` (the object is shorter
 * than the range asked for), `timeout`, `io`; `unsupported` for an option that `can` says no to,
 * `usage` for a bad key. An abort rejects with the signal's reason. No method retries; `withRetry`
 * (storage/wrap) does. A failed listing throws: it never looks like an empty one.
 */
export interface Storage extends AsyncDisposable {
  /** For messages: no credentials in it. */
  readonly url: string
  /** Tried on the real store when it was opened, not guessed from its name. */
  readonly can: {
    readonly conditionalPut: boolean
    readonly retention: boolean
  }

  /**
   * Stores the parts, joined, under the key: atomically, durable when the call returns.
   * An existing object is replaced. Calling again with the same bytes is harmless.
   */
  put(key: string, parts: Uint8Array | readonly Uint8Array[], options?: PutOptions): Promise<void>

  /**
   * Like `put`, for what does not fit in memory: reads `source` to its end, in parts uploaded in
   * parallel.
   */
  putStream(key: string, source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void>

  /**
   * The bytes `[start, end)` of an object, all of it by default. A short answer is an `unreachable`
   * Fault, never returned.
   */
  get(key: string, options?: GetOptions): Promise<Buffer>

  /**
   * The object from `start` on, as it arrives; breaking off frees the connection. A short object
   * throws.
   */
  stream(key: string, options?: StreamOptions): AsyncIterable<Buffer>

  /** Facts of one object; undefined when it is not there. */
  stat(
    key: string,
    options?: { readonly signal?: AbortSignal | undefined },
  ): Promise<ObjectInfo | undefined>

  /**
   * All objects whose keys start with `prefix`, in ascending byte order of keys, those after
   * `after` only.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo>

  /** Removes the object; one that is not there is no error. */
  delete(key: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<void>
}
