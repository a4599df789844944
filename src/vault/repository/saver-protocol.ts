import type { Inspection } from '#base/blocks'
import type { Code } from '#base/faults'
import type { MakerSetup } from './blob-maker.ts'
import type { Hole } from '#change/tree'
import type { BlobType } from './repository.ts'

// What a saver and its worker threads tell each other. Bytes are transferred or shared, never copied. Packs are
// shared: memory of that size passing from thread to thread makes each side's garbage collector run for nothing.

export type WorkerSetup = {
  readonly maker: MakerSetup
  /** Words that both sides look at while the worker is busy: `stopWord`, `wakeWord`. */
  readonly control: SharedArrayBuffer
}

/** Not zero: give up as soon as possible. */
export const stopWord = 0
/** Counts up with everything that a waiting worker may be waiting for. */
export const wakeWord = 1

/** A file to be read by the worker; the path is in latin1, one character a byte. */
export type FileJob = {
  readonly job: number
  readonly path: string
  readonly holes?: readonly Hole[] | undefined
}

/** What a blob on its way to a worker counts beside its bytes: a million empty ones would fill the memory too. */
export const blobWeightBytes = 1024

export type ToWorker =
  | { readonly kind: 'files'; readonly jobs: readonly FileJob[] }
  /** The next bytes of a stream; the buffer goes back with `taken`. */
  | {
      readonly kind: 'piece'
      readonly job: number
      readonly bytes: ArrayBuffer
      readonly size: number
      readonly isLast: boolean
    }
  /** The stream broke off; nothing of it counts. */
  | { readonly kind: 'drop'; readonly job: number }
  /** Claimed blobs, their bytes joined. */
  | {
      readonly kind: 'blobs'
      readonly entries: readonly {
        readonly type: BlobType
        readonly id: string
        readonly size: number
      }[]
      readonly bytes: ArrayBuffer
    }
  /** A block that is to become one blob; its memory is the saver's again with `saved`. */
  | {
      readonly kind: 'block'
      readonly job: number
      readonly bytes: SharedArrayBuffer
      readonly size: number
      /** Where it stands in its file. */
      readonly offset: number
      readonly inspection: Inspection | undefined
    }
  /** The memory of a pack that is stored. */
  | { readonly kind: 'room'; readonly type: BlobType; readonly bytes: SharedArrayBuffer }
  | { readonly kind: 'flush' }
  | { readonly kind: 'stop' }

/** A file or stream that is cut whole, or could not be read. */
export type JobResult =
  | { readonly job: number; readonly blobs: number; readonly sizeBytes: number }
  | {
      readonly job: number
      readonly code: Code
      readonly message: string
      readonly cause: unknown
    }

export type PackParts = {
  readonly type: BlobType
  readonly bytes: SharedArrayBuffer
  readonly size: number
}

export type Added = {
  readonly dataBlobs: number
  readonly treeBlobs: number
  readonly plainBytes: bigint
  readonly storedBytes: bigint
}

export type FromWorker =
  /** The blob ids of all results, one after the other, 32 bytes each. */
  | { readonly kind: 'results'; readonly results: readonly JobResult[]; readonly ids: ArrayBuffer }
  /** The worker is busy with a large file: these jobs may go elsewhere until that one has its result. */
  | { readonly kind: 'returned'; readonly jobs: readonly FileJob[] }
  | { readonly kind: 'read'; readonly job: number; readonly sizeBytes: number }
  | { readonly kind: 'taken'; readonly job: number; readonly bytes: ArrayBuffer }
  /** The worker cannot go on: nothing that it made counts. */
  | { readonly kind: 'failed'; readonly code: Code; readonly message: string }
  /** Blobs are packed; their sizes and weights are no longer on the way. */
  | { readonly kind: 'stored'; readonly weightBytes: number }
  /** A block's id, and what its inspector said. */
  | { readonly kind: 'saved'; readonly job: number; readonly id: string; readonly said: unknown }
  | { readonly kind: 'pack'; readonly id: string; readonly pack: PackParts }
  | {
      readonly kind: 'flushed'
      readonly packs: readonly (PackParts & { readonly header: Uint8Array })[]
      readonly added: Added
    }
