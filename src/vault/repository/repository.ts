import type { Progress } from '#base/progress'
import type { Content } from '#change/tree'
import type { Storage } from '#storage'

export type BlobType = 'data' | 'tree'

/** Where a blob lies: its envelope is `length` bytes of the pack from `offset`; uncompressed when `plainLength` is 0. */
export type BlobPlace = {
  readonly pack: string
  readonly offset: number
  readonly length: number
  readonly plainLength: number
}

/** A snapshot record, as restic stores it; unknown fields are kept. */
export type Snapshot = {
  readonly id: string
  readonly time: string
  readonly tree: string
  readonly paths: readonly string[]
  readonly parent?: string | undefined
  readonly hostname?: string | undefined
  readonly username?: string | undefined
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  readonly excludes?: readonly string[] | undefined
  readonly tags?: readonly string[] | undefined
  readonly original?: string | undefined
  readonly program_version?: string | undefined
  readonly summary?: Readonly<Record<string, unknown>> | undefined
}

/** Which chunks a file consists of: hexadecimal blob ids in order. */
export type SavedContent = { readonly blobs: readonly string[]; readonly sizeBytes: bigint }

export type SaverStats = {
  readonly dataBlobs: number
  readonly treeBlobs: number
  /** Plain bytes that were new, and what they take in packs. */
  readonly addedBytes: bigint
  readonly storedBytes: bigint
}

/**
 * Writes blobs: content is cut, hashed, deduplicated, compressed, encrypted and packed by worker threads.
 * Calls may overlap. Nothing counts before `finish`, which flushes packs, then indexes.
 */
export interface BlobSaver extends AsyncDisposable {
  saveContent(content: Content, progress?: Progress): Promise<SavedContent>
  saveBlob(type: BlobType, plain: Uint8Array): Promise<string>
  finish(): Promise<SaverStats>
}

/** Held while a lock file is kept fresh; `signal` aborts when it could not be refreshed in time. */
export interface RepositoryLock extends AsyncDisposable {
  readonly signal: AbortSignal
}

/**
 * A restic repository, versions 1 (read only) and 2; the format stands in docs/formats/repository.md.
 * Order of writing: packs, indexes, snapshot. Order of reading: snapshots listed before indexes are loaded.
 */
export interface Repository extends AsyncDisposable {
  readonly id: string
  readonly version: 1 | 2
  readonly storage: Storage
  lock(kind: 'shared' | 'exclusive', options: { signal: AbortSignal }): Promise<RepositoryLock>
  /** Loads what is new in `index/`; called before anything that looks blobs up. */
  loadIndex(options: { signal: AbortSignal }): Promise<void>
  find(type: BlobType, id: string): BlobPlace | undefined
  openSaver(options: {
    signal: AbortSignal
    compression?: 'off' | 'fastest' | 'auto' | 'better' | 'max' | undefined
    workers?: number | undefined
  }): Promise<BlobSaver>
  /** One blob, decrypted, decompressed, its SHA-256 compared with its id. */
  loadBlob(type: BlobType, id: string, options: { signal: AbortSignal }): Promise<Buffer>
  /** Many blobs, pack by pack in ranged reads by `width` workers; `visit` gets each once and may be called concurrently. */
  loadBlobs(
    ids: Iterable<string>,
    options: { signal: AbortSignal; width?: number | undefined },
    visit: (id: string, plain: Buffer) => Promise<void>,
  ): Promise<void>
  snapshots(options: { signal: AbortSignal }): Promise<Snapshot[]>
  saveSnapshot(snapshot: Omit<Snapshot, 'id'>, options: { signal: AbortSignal }): Promise<Snapshot>
  removeSnapshot(id: string, options: { signal: AbortSignal }): Promise<void>
}
