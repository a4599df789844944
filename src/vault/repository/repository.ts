import type { BlockWriter, Inspection, Written } from '#base/blocks'
import type { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import type { Time } from '#base/time'
import type { Content } from '#change/tree'
import type { Storage } from '#storage'
import type { CompressionMode } from './compression.ts'
import type { PackProver } from './pack-prover.ts'

export type BlobType = 'data' | 'tree'

/** Where a blob lies: its envelope is `length` bytes of the pack from `offset`; uncompressed when `plainLength` is 0. */
export type BlobPlace = {
  readonly pack: string
  readonly offset: number
  readonly length: number
  readonly plainLength: number
}

/** A blob as a pack's header or an index lists it. */
export type PackedBlob = {
  readonly id: string
  readonly type: BlobType
  readonly offset: number
  readonly length: number
  /** Size once unpacked; 0 when it is not compressed. */
  readonly plainLength: number
}

/** A pack with all its blobs, ascending by offset. */
export type IndexedPack = { readonly id: string; readonly blobs: readonly PackedBlob[] }

/** What a key file says of itself. */
export type RepositoryKey = {
  readonly id: string
  readonly created: string
  readonly username: string
  readonly hostname: string
}

/** A file that is named by the SHA-256 of its stored bytes. */
export type StoredFile = {
  readonly id: string
  readonly sizeBytes: number
  readonly modifiedMs: number
}

/** Folders of small files of JSON. `marks` is our own: packs on their way out, see prune. */
export type JsonFolder = 'index' | 'snapshots' | 'locks' | 'marks'

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

/** Also tells the blobs. */
export interface BlobWriter extends BlockWriter {
  end(): Promise<Written & { readonly blobs: readonly string[] }>
}

/**
 * Writes blobs: content is cut, hashed, deduplicated, compressed, encrypted and packed by worker threads.
 * Calls may overlap. Nothing counts before `finish`, which flushes packs, then indexes.
 */
export interface BlobSaver extends AsyncDisposable {
  saveContent(content: Content, progress?: Progress): Promise<SavedContent>
  /**
   * Stores one blob unless it is there already; `again` stores it in any case (repacking). `isGiven` says that the
   * memory of `plain` is the saver's from here on. Returns its id; may wait while uploads lag behind.
   */
  saveBlob(
    type: BlobType,
    plain: Uint8Array,
    options?: { readonly again?: boolean; readonly isGiven?: boolean },
  ): Promise<string>
  /** A file whose bytes change in place, such as a database's: cut at fixed offsets instead of by content. */
  writeBlocks(options?: {
    /** Looks at each block on the thread that stores it. */
    readonly inspection?: Inspection | undefined
    /** Where in its file the first byte stands: borders are multiples of `blockBytes` there. */
    readonly offset?: number | undefined
  }): BlobWriter
  finish(): Promise<SaverStats>
}

/** Files to which a blob's plain bytes go: blocks of zeroes at its ends are left out. */
export interface BlobPlacing {
  readonly places: readonly { readonly descriptor: number; readonly offset: number }[]
  /** All of it, so many bytes, is in all the places. */
  written(sizeBytes: number): void
  /** What to throw of an error of the place `index`. */
  fault(index: number, error: unknown): unknown
  /** Called last, whatever happened. */
  release(): void
}

/** Held while a lock file is kept fresh; `signal` aborts when it could not be refreshed in time. */
export interface RepositoryLock extends AsyncDisposable {
  readonly signal: AbortSignal
}

export type AddKeyOptions = {
  /** Called with the id of the key file before it is stored, so that no key is there that nobody knows of. */
  readonly beforeStored?: ((id: string) => Promise<void>) | undefined
}

/**
 * A restic repository, versions 1 (read only) and 2; the format stands in docs/formats/repository.md.
 * Order of writing: packs, indexes, snapshot. Order of reading: snapshots listed before indexes are loaded.
 */
export interface Repository extends AsyncDisposable {
  readonly id: string
  readonly version: 1 | 2
  readonly storage: Storage
  lock(
    kind: 'shared' | 'exclusive',
    options: {
      signal: AbortSignal
      time?: Time | undefined
      /** The work only reads: where the store refuses to be written to, it goes on without a lock. */
      readOnly?: boolean | undefined
    },
  ): Promise<RepositoryLock>
  /** Loads what is new in `index/`; called before anything that looks blobs up. */
  loadIndex(options: {
    signal: AbortSignal
    /** Takes an index file that cannot be read, for checks; without it the fault is thrown. */
    onDamaged?: ((id: string, fault: Fault) => void) | undefined
  }): Promise<void>
  find(type: BlobType, id: string): BlobPlace | undefined
  /** Whether `find` would find it; much cheaper. */
  has(type: BlobType, id: string): boolean
  /** All places of a blob: more than one when it was stored twice. */
  findAll(type: BlobType, id: string): Iterable<BlobPlace>
  /** Every blob of the loaded index with its place, duplicates too, in no order. */
  blobs(): Iterable<BlobPlace & { readonly id: string; readonly type: BlobType }>
  /** The number of what `blobs` yields. */
  readonly blobCount: number
  openSaver(options: {
    signal: AbortSignal
    compression?: CompressionMode | undefined
    workers?: number | undefined
  }): Promise<BlobSaver>
  /** One blob, decrypted, decompressed, its SHA-256 compared with its id. */
  loadBlob(type: BlobType, id: string, options: { signal: AbortSignal }): Promise<Buffer>
  /**
   * Many blobs of one type (data by default), pack by pack in ranged reads by `width` workers; `visit` gets each
   * once and may be called concurrently. What cannot be had goes to `onDamaged`, or is thrown without it.
   */
  loadBlobs(
    ids: Iterable<string>,
    options: {
      signal: AbortSignal
      width?: number | undefined
      /** What `visit` gets holds only until its promise is settled: lets other threads open the blobs. */
      isTransient?: boolean | undefined
      type?: BlobType | undefined
      onDamaged?: ((id: string, fault: Fault) => void) | undefined
      /** With `isTransient`: where another thread may write a blob's bytes itself, instead of a visit. */
      place?: ((id: string) => BlobPlacing | undefined) | undefined
    },
    visit: (id: string, plain: Buffer) => Promise<void>,
  ): Promise<void>
  /** The blobs that a stored pack lists in its own header. */
  readPackHeader(
    pack: string,
    sizeBytes: number,
    options: { signal: AbortSignal },
  ): Promise<PackedBlob[]>
  /** Takes a whole pack apart: its header, read from the bytes. */
  decodePack(pack: string, bytes: Buffer): PackedBlob[]
  /** Proves whole packs on so many threads. */
  openPackProver(workers: number): PackProver
  /** Opens an envelope cut out of a pack, unpacks it, and compares it with the id. */
  openBlob(blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>, envelope: Buffer): Buffer
  /** The same in memory that the next call uses again. */
  viewBlob(blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>, envelope: Buffer): Buffer
  /** What lies in a folder, ascending by id; a failed listing throws. */
  listFiles(folder: JsonFolder | 'keys', options: { signal: AbortSignal }): Promise<StoredFile[]>
  /** The JSON of a small file; its bytes are compared with its name. */
  loadJson(
    folder: JsonFolder,
    file: { readonly id: string; readonly sizeBytes?: number | undefined },
    options: { signal: AbortSignal },
  ): Promise<unknown>
  /** Stores JSON text, decoded again before it leaves; returns the file's id. */
  saveJson(folder: JsonFolder, text: string, options: { signal: AbortSignal }): Promise<string>
  /** One index file, decoded: `encodeIndex` (index/index-file.ts) makes the text of one. */
  loadIndexFile(
    file: { readonly id: string; readonly sizeBytes?: number | undefined },
    options: { signal: AbortSignal },
  ): Promise<IndexedPack[]>
  snapshots(options: { signal: AbortSignal }): Promise<Snapshot[]>
  saveSnapshot(snapshot: Omit<Snapshot, 'id'>, options: { signal: AbortSignal }): Promise<Snapshot>
  removeSnapshot(id: string, options: { signal: AbortSignal }): Promise<void>
  /** The key file that opened the repository. */
  readonly keyId: string
  /** The JSON of the keys under which everything lies: a secret, to be kept under no weaker a password. */
  readonly masterKeys: string
  listKeys(options: { signal: AbortSignal }): Promise<RepositoryKey[]>
  /** Lets another password open the repository; returns the id of its key file. */
  addKey(password: string, options: { signal: AbortSignal } & AddKeyOptions): Promise<string>
  /** Replaces the key that opened the repository by one with another password. */
  changeKey(password: string, options: { signal: AbortSignal }): Promise<string>
  /** Removes a key file; refuses the one that opened the repository. */
  removeKey(id: string, options: { signal: AbortSignal }): Promise<void>
}
