import type { Log } from '#base/log'
import type { Position } from './change.ts'
import type { TableShape } from './schema.ts'

/**
 * A share of a table's rows, whole in itself: ranges along the storage order that do not overlap and that together hold
 * every row there can be, also those that come after the plan was made.
 */
export type Chunk = {
  /** Index of the table in the plan, and of the chunk in its table. */
  readonly table: number
  readonly index: number
  /** By the source's statistics. */
  readonly sizeBytes: number
  /** The engine's own words for the range, as text: the same whenever it is read. */
  readonly range: string
}

/** How rows are written down on their way: what source and target offer is compared, best first. `neutral` is spoken by all. */
export type Encoding = 'mysql/text-row' | 'pg/copy-binary' | 'pg/copy-text' | 'neutral'

/** A run of rows; whole ones in `neutral`, while a long row may lie across blocks of the other encodings. */
export type RowBlock = {
  /** Valid until the next block is pulled: who keeps it copies it. */
  readonly bytes: Buffer
  /** Those that end in it. */
  readonly rows: number
}

export type BeginCopy = {
  readonly tables: readonly TableShape[]
  /** Sessions that read side by side. */
  readonly parallel: number
  /**
   * Changes will be read from the copy's position on under this name: what the source must keep for that (a slot) is made
   * in the same moment. Undefined when nobody will.
   */
  readonly follow: string | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

/** Reads the rows of a live source. */
export interface CopySource {
  /** Opens sessions that all see the data at one position of the log; commits wait for milliseconds at most. */
  beginCopy(options: BeginCopy): Promise<CopyReader>
}

export interface CopyReader extends AsyncDisposable {
  /** What every row that is read is as of; undefined when the source keeps no log. */
  readonly position: Position | undefined
  /**
   * Equal for two readers only when no row changed between them: a link that was killed then goes on as if it had not been.
   * The position where that tells it; undefined where nothing does.
   */
  readonly stamp: string | undefined
  /** Best first. */
  encodings(table: TableShape): readonly Encoding[]
  /**
   * Whether the chunks of a table are ranges of its identifying key: a row stays in its chunk as long as its key does, so that
   * the chunks may be read at several positions. False for ranges of places, where an update moves a row into another chunk:
   * after a kill such a table is begun anew, unless the stamp is the same.
   */
  chunksByKey(table: TableShape): boolean
  /** Cuts a table into chunks of about so many bytes; the last is bounded like the others, and open to what comes behind it. */
  plan(
    table: TableShape,
    options: { readonly index: number; readonly chunkBytes: number; readonly signal: AbortSignal },
  ): Promise<readonly Chunk[]>
  /**
   * The rows of a chunk. As many can be read at once as there are sessions; one more waits. Pulling is flow credit; leaving
   * the loop ends the reading and frees the session.
   */
  read(
    table: TableShape,
    chunk: Chunk,
    options: { readonly encoding: Encoding; readonly signal: AbortSignal },
  ): AsyncIterable<RowBlock>
}

export type OpenCopy = {
  /** Names the link: marks of chunks are kept under it on the target. */
  readonly link: string
  /** Counts the link's readers, each of which has a position of its own: marked with every chunk. */
  readonly run: number
  readonly parallel: number
  readonly log: Log
  readonly signal: AbortSignal
}

/** Takes rows into a target. */
export interface CopyTarget {
  /** Opens sessions and prepares the target for loading: what is changed of its settings is put back at the end. */
  openCopy(options: OpenCopy): Promise<CopyWriter>
}

/** A chunk that is on the target, rows and mark together. */
export type LoadedChunk = {
  readonly table: number
  readonly index: number
  /** The run that brought it. */
  readonly run: number
  readonly rows: bigint
}

export interface CopyWriter extends AsyncDisposable {
  /** Best first. */
  encodings(table: TableShape): readonly Encoding[]
  /** The chunks of this link that are on the target, marked in the transaction that brought their rows. */
  loaded(options: { readonly signal: AbortSignal }): Promise<readonly LoadedChunk[]>
  /**
   * Writes the rows of one chunk and its mark in one transaction: after a crash both are there or neither. As many as there
   * are sessions at once; one more waits. Returns the number of rows; refuses with `different` when the target kept fewer than
   * came, with `conflict` when the mark is there already: a session of a process that died committed late.
   */
  load(
    table: TableShape,
    chunk: Chunk,
    rows: AsyncIterable<RowBlock>,
    options: { readonly encoding: Encoding; readonly signal: AbortSignal },
  ): Promise<bigint>
  /** Empties a table and forgets its marks: its copy begins anew. */
  clear(
    table: TableShape,
    options: { readonly index: number; readonly signal: AbortSignal },
  ): Promise<void>
  /** The copy is complete: removes the marks, and tells the optimiser of the new tables (ANALYZE). */
  finish(tables: readonly TableShape[], options: { readonly signal: AbortSignal }): Promise<void>
}
