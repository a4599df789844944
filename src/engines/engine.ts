import type { BlockWriter, Inspection } from '#base/blocks'
import type { Progress } from '#base/progress'
import type { Log } from '#base/log'
import type { Commit, LogReader, LogSource, Position, Target } from '#change'
import type { ApplyTarget } from '#change/apply'
import type { ChangeSource } from '#change/batch'
import type { CopySource, CopyTarget } from '#change/copy'
import type { DigestSource } from '#change/digest'
import type { Finding } from '#change/finding'
import type { SchemaSource, SchemaTarget } from '#change/schema'
import type { Nameless, TreeEntry } from '#change/tree'

/** What a source is: shown by `inspect`, recorded in the vault. */
export type SourceFacts = {
  readonly engine: string
  readonly flavor: string
  readonly version: string
  /** The present history: see Position. */
  readonly history: string
  /** Where its log ends now. */
  readonly position?: Position | undefined
  readonly sizeBytes?: bigint | undefined
  /** Settings and figures worth showing, by their own names. */
  readonly details: Readonly<Record<string, string>>
}

export type Use =
  | 'backup'
  | 'protect'
  | 'protect-strict'
  | 'migrate-from'
  | 'migrate-to'
  /** Its changes are read, decoded. */
  | 'sync-from'
  /** They are applied to it. */
  | 'sync-to'

/** The record of a base backup, enough to restore it: stored in the vault's catalog. */
export type BaseFacts = {
  readonly engine: string
  readonly flavor: string
  readonly version: string
  readonly form: 'physical' | 'logical'
  /** The log that a restore replays begins here. */
  readonly first: Position
  /** From here on the restored data is consistent: the earliest moment this base can reach. */
  readonly consistent: Position
  readonly startedUs: bigint
  /** Source's clock when the base was consistent. */
  readonly consistentUs: bigint
  readonly sizeBytes: bigint
  /** The engine's own notes, read by its own restore. */
  readonly details: Readonly<Record<string, string>>
}

/** What a base backup knows of a file, a directory or another node, beside its path. */
export type BaseEntry<Kind extends TreeEntry['kind']> = Nameless<Extract<TreeEntry, { kind: Kind }>>

/** Where an engine puts the files of a base backup. Paths are relative, `/` between their parts; calls may overlap. */
export interface BaseSink {
  /** A regular file; takes its content to the end. */
  file(path: string, entry: BaseEntry<'file'>, content: AsyncIterable<Buffer>): Promise<void>
  /**
   * A file that differs from the parent base's file of the same path in these extents only (ascending, not
   * overlapping), cut or extended by zeroes to `entry.sizeBytes`. Only when a parent was given.
   */
  patch(
    path: string,
    entry: BaseEntry<'file'>,
    extents: AsyncIterable<{ readonly offset: number; readonly bytes: Buffer }>,
  ): Promise<void>
  /**
   * A regular file whose bytes change in place: stored in blocks at fixed offsets, so that those which did not change are
   * found again. The inspection runs where the blocks are stored; `end` tells what it said.
   */
  blocks(path: string, entry: BaseEntry<'file'>, inspection?: Inspection): BlockWriter
  /** A directory, symlink or other node. */
  node(path: string, entry: BaseEntry<'dir' | 'symlink' | 'fifo' | 'socket'>): Promise<void>
}

export type BaseFile = { readonly path: string; readonly sizeBytes: bigint }

/** How an engine reads the files of a stored base again. */
export interface BaseReader {
  list(options: { readonly signal: AbortSignal }): AsyncIterable<BaseFile>
  read(path: string, options: { readonly signal: AbortSignal }): AsyncIterable<Buffer>
  /** Lays the whole tree (or what `keep` accepts) out below a local directory, in parallel, only differing chunks written. */
  layOut(
    directory: string,
    options: {
      readonly signal: AbortSignal
      readonly progress?: Progress | undefined
      /** Maps or drops a stored path; paths are relative. */
      readonly map?: ((path: string) => string | undefined) | undefined
    },
  ): Promise<void>
}

export type BaseOptions = {
  readonly signal: AbortSignal
  readonly progress: Progress
  readonly log: Log
  readonly form?: 'physical' | 'logical' | undefined
  /** Sessions at most. */
  readonly parallel: number
  readonly limitBytesPerSecond?: number | undefined
  /** Where the log of this source that is kept already ends: tells which history the base is in. */
  readonly known?: Position | undefined
  /** The last base of this source, for an incremental one where the engine has that. */
  readonly parent?: { readonly facts: BaseFacts; readonly files: BaseReader } | undefined
}

export type LogOptions = {
  readonly log: Log
  /** Names the slot or the replica: one archiver per source and name. */
  readonly name: string
  /** `strict`: the source's commits wait for `ack`. */
  readonly durability: 'async' | 'strict'
  /** Where the log that is kept already ends, also when it is not read on from there: a log that began anew says so. */
  readonly known?: Position | undefined
  /** The source no longer waits for `ack` though it should, or waits again. */
  readonly onDegraded?: ((said: string | undefined) => void) | undefined
}

/** One endpoint of an engine, connected. What is optional is had by the engines that can do it. */
export interface Engine extends AsyncDisposable {
  readonly facts: SourceFacts
  /** Reads and makes databases, tables and all other objects. */
  readonly schema?: (SchemaSource & SchemaTarget) | undefined
  /** Reads all rows as of one position, and takes rows in. */
  readonly rows?: (CopySource & CopyTarget) | undefined
  /** Reads what changes, decoded. */
  readonly changes?: ChangeSource | undefined
  /** Compares rows by digests that the server computes. */
  readonly digest?: DigestSource | undefined
  /** Takes changes in. */
  readonly apply?: ApplyTarget | undefined
  /** Checks the source for a use; all findings, not the first. */
  probe(use: Use, options: { readonly signal: AbortSignal }): Promise<Finding[]>
  /** Takes a base backup into the sink. */
  takeBase(sink: BaseSink, options: BaseOptions): Promise<BaseFacts>
  /** The native log. */
  openLog(options: LogOptions): Promise<LogSource & AsyncDisposable>
  /** Writes a heartbeat (a logical message, a row) into the source's log where it may; false when it may not. */
  beat(options: { readonly signal: AbortSignal }): Promise<boolean>
}

export type RestoreRequest = {
  readonly base: BaseFacts
  readonly files: BaseReader
  readonly archive: LogReader | undefined
  readonly target: Target
  /** A directory to lay out, or the URL of a server to fill. */
  readonly to: string
  /** Patterns `database.schema.table`, with `*`; empty for everything. */
  readonly only: readonly string[]
  /** Start the restored server and wait until it has reached the target. */
  readonly start: boolean
  /** Overwrite what is there. */
  readonly force: boolean
  /** Tablespaces or data directories elsewhere: old path to new. */
  readonly remap: Readonly<Record<string, string>>
  /** Folder of the engine's server programs; else PATH and the usual places. */
  readonly serverBin?: string | undefined
  readonly parallel: number
  readonly signal: AbortSignal
  readonly progress: Progress
  readonly log: Log
}

export type RestoreResult = {
  /** The last transaction that the restored data holds, when the engine could tell. */
  readonly last: Commit | undefined
  /** Where replay stopped. */
  readonly reached: Position
  /** What the operator does next, a line each; empty when the server runs. */
  readonly next: readonly string[]
  /** How to reach the server that was started. */
  readonly url?: string | undefined
}

/** A server run from a restored data directory on a free loopback port, thrown away afterwards. */
export interface ScratchServer extends AsyncDisposable {
  readonly url: string
}

/** One check of a proof, and what it found. */
export type Check = { readonly name: string; readonly ok: boolean; readonly said: string }

/** An engine as a trade: what can be done with its URLs and its backups before any server is connected. */
export interface EngineKind {
  readonly name: string
  /** URL schemes without the colon: `postgres`, `postgresql`. */
  readonly schemes: readonly string[]
  /** Connects. `unreachable`, `denied`, `unsupported` say why not. */
  open(url: string, options: { readonly signal: AbortSignal; readonly log: Log }): Promise<Engine>
  /** Reads what a user wrote for `--at` beyond times, names of bases and `latest`: an LSN, a GTID, `file:position`. */
  parseTarget(text: string): Target | undefined
  /** Brings a base and the log behind it back. */
  restore(request: RestoreRequest): Promise<RestoreResult>
  /**
   * Restores into a scratch server below `directory`, runs the engine's own checks on it, and returns them all.
   * The server is ended and the directory emptied whatever happens.
   */
  prove(
    request: Omit<RestoreRequest, 'to' | 'start' | 'force'>,
    directory: string,
  ): Promise<{
    readonly result: RestoreResult
    readonly checks: readonly Check[]
  }>
}
