import type { LogReader, Position } from '#change'
import type { ArchiveWriter, LogSpan } from './archive/archive.ts'
import type { Repository } from './repository/repository.ts'

export type { ArchiveWriter, LogSpan } from './archive/archive.ts'
export { LooseTree, type NodeBody } from './repository/loose-tree.ts'
export {
  type Archived,
  type ArchiveOptions,
  type ArchiveSummary,
  archiveTree,
  chooseParent,
  type Trouble as ArchiveTrouble,
} from './repository/archiver.ts'
export { type CompareOptions, compareTree, type Difference } from './repository/comparer.ts'
export { initRepository, openRepository } from './repository/open.ts'
export {
  type RestoreOptions,
  type RestoreTrouble,
  type Restored,
  restoreTree,
  type Selection,
} from './repository/restorer.ts'
export { resolveTree } from './repository/tree-loader.ts'
export type { BlobSaver, Repository, Snapshot } from './repository/repository.ts'
export type { TreeNode } from './repository/tree-codec.ts'
export { readContent, type ReadNode, readNodes } from './repository/tree-reader.ts'

/** A source that the vault knows: one record of the catalog a change. */
export type SourceRecord = {
  readonly name: string
  readonly engine: string
  readonly flavor: string
  readonly version: string
  /** Where it was reached last: no credentials in it. */
  readonly url: string
  readonly recordedMs: number
}

/** A base backup that a restore can start from. `facts` is the engine's record, opaque to the vault. */
export type BaseRecord = {
  readonly source: string
  /** A name the user may give in `--at`. */
  readonly name: string
  readonly snapshot: string
  readonly first: Position
  readonly consistent: Position
  readonly consistentUs: bigint
  readonly facts: unknown
  readonly recordedMs: number
}

/** A known hole: the log between the two positions is lost for good. */
export type GapRecord = {
  readonly source: string
  readonly after: Position
  readonly before: Position | undefined
  readonly said: string
  readonly recordedMs: number
}

/** A verified restore. */
export type ProofRecord = {
  readonly source: string
  readonly base: string
  /** What was restored to, in the words of `--at`, and what was reached. */
  readonly target: string
  readonly reached: Position
  readonly reachedUs: bigint | undefined
  readonly ok: boolean
  readonly checks: readonly { readonly name: string; readonly ok: boolean; readonly said: string }[]
  readonly tookMs: number
  readonly recordedMs: number
}

/** Append-only signed records. Everything that was recorded is durable when the call returns. */
export interface Catalog {
  addSource(
    record: Omit<SourceRecord, 'recordedMs'>,
    options: { signal: AbortSignal },
  ): Promise<void>
  addBase(record: Omit<BaseRecord, 'recordedMs'>, options: { signal: AbortSignal }): Promise<void>
  addGap(record: Omit<GapRecord, 'recordedMs'>, options: { signal: AbortSignal }): Promise<void>
  addProof(record: Omit<ProofRecord, 'recordedMs'>, options: { signal: AbortSignal }): Promise<void>
  sources(options: { signal: AbortSignal }): Promise<SourceRecord[]>
  /** In the order of recording; bases whose snapshot was forgotten are not among them. */
  bases(source: string, options: { signal: AbortSignal }): Promise<BaseRecord[]>
  gaps(source: string, options: { signal: AbortSignal }): Promise<GapRecord[]>
  proofs(source: string, options: { signal: AbortSignal }): Promise<ProofRecord[]>
}

/** The log archive of all sources. */
export interface Archive {
  /** Becomes the one archiver of the source; `locked` while another one lives. */
  openWriter(
    source: string,
    options: { signal: AbortSignal },
  ): Promise<ArchiveWriter & { readonly end: Position | undefined }>
  openReader(source: string, options: { signal: AbortSignal }): Promise<LogReader>
  /** What is there without a hole, in log order: one span means no gap. */
  spans(source: string, options: { signal: AbortSignal }): Promise<LogSpan[]>
}

/** An open vault. `repository` needs the password; a host that only archives has none. */
export interface Vault extends AsyncDisposable {
  readonly url: string
  readonly repository: Repository
  readonly archive: Archive
  readonly catalog: Catalog
}
