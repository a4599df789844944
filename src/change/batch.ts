import type { Log } from '#base/log'
import type { LogBeat, Position } from './change.ts'
import type { ObjectName, Selection } from './schema.ts'

/** How the cells of a stream are written down, as encodings of a copy are: `neutral` is spoken by every engine. */
export type CellForm = 'mysql/row-image' | 'pg/text' | 'pg/binary' | 'neutral'

export type RelationColumn = {
  readonly name: string
  /** The source's own type, in full, as in `ColumnShape`. */
  readonly type: string
  /** The numbers that the engine reads its cells by: a type OID and modifier, a binlog type and its metadata. */
  readonly code: number
  readonly modifier: number
  /** Of a text, by the source's name of it; undefined where the type tells. */
  readonly charset?: string | undefined
  /** Part of what the log names a row by. */
  readonly identifies: boolean
}

/** A table as the log has it from some position on. Another object comes when its form changes; never a changed one. */
export type Relation = {
  /** Unique in one stream. */
  readonly id: number
  /** On the source. */
  readonly name: ObjectName
  readonly columns: readonly RelationColumn[]
  readonly form: CellForm
  /**
   * What a before image holds: the key's columns, all columns, or nothing (rows cannot be found again). Where that differs
   * from session to session (MySQL) a table has a relation for each.
   */
  readonly before: 'key' | 'full' | 'none'
}

/** What a cell is instead of a range of bytes, in place of its start. */
export const cellNull = -1
/** The image does not have the column: unchanged and not sent. Never to be taken for NULL. */
export const cellAbsent = -2

/** Whether a cell is a patch to the value before it (a part of a JSON document), by its end: its true end is the inverse. */
export function isPatch(end: number): boolean {
  return end < 0
}

/**
 * Changes of one kind to one relation that follow one another in one transaction, undecoded. For each row come its images,
 * before (update, delete) and then after (insert, update); for each image a pair of start and end in `bytes` for every
 * column, or `cellNull` or `cellAbsent` and 0.
 */
export type RowRun = {
  readonly kind: 'insert' | 'update' | 'delete'
  readonly relation: Relation
  readonly rows: number
  /**
   * What foreign keys of the source changed of other tables because of these rows is not among the changes: a target whose
   * foreign keys cascade lets them.
   */
  readonly cascades?: boolean | undefined
  /** Belongs to the batch: who keeps it longer copies it. */
  readonly bytes: Buffer
  readonly cells: Int32Array
}

export type Truncation = {
  readonly kind: 'truncate'
  readonly relations: readonly Relation[]
  readonly cascade: boolean
  readonly restartIdentity: boolean
}

/** A statement of the source's language that the log holds as text. */
export type Statement = {
  readonly kind: 'statement'
  readonly sql: string
  /** What unqualified names in it are of. */
  readonly database: string
  /** Settings of the session that it depends on, by their own names. */
  readonly settings: Readonly<Record<string, string>>
}

export type Change = RowRun | Truncation | Statement

/** A transaction, or a piece of one that is larger than the limit of a batch. */
export type Transaction = {
  /** The engine's own name of it: a GTID, an xid. */
  readonly id: string
  /** Commit time by the source's clock, microseconds since 1970; of a piece before the last that of its begin. */
  readonly timeUs: bigint
  /** Who wrote it first, where the log says so: a server id, a replication origin. */
  readonly origin: string | undefined
  /** Its first change is here. */
  readonly begins: boolean
  /** Its last change is here: it is committed. */
  readonly ends: boolean
  /** It ends, and never committed (a crash of the source cut it off): what was given out of it is to be undone. */
  readonly aborted?: boolean | undefined
  readonly changes: readonly Change[]
  /** From here on the source reads on behind it; only where it ends. */
  readonly position: Position | undefined
}

/** A bounded run of changes: whole transactions in commit order, or one piece of a large one. */
export type Batch = {
  readonly kind: 'batch'
  readonly transactions: readonly Transaction[]
  /** Rows and bytes, for queues that are bounded by both. */
  readonly rows: number
  readonly sizeBytes: number
}

export type OpenChanges = {
  /** Names the slot or the replica, as `BeginCopy.follow` did. */
  readonly name: string
  readonly after: Position
  /** Row events of what it does not accept are skipped undecoded; their transactions still move the position. */
  readonly selection: Pick<Selection, 'accepts'>
  readonly batchRowsMax: number
  readonly batchBytesMax: number
  /**
   * A folder of the link's own, for what has to wait until its transaction commits: files are made and removed there. Without
   * it the source keeps such things itself.
   */
  readonly directory?: string | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

/** Reads what changes in a live source. */
export interface ChangeSource {
  /** Throws `log-lost` when the source no longer has what follows `after`, `source-changed` when it is another's. */
  openChanges(options: OpenChanges): Promise<ChangeReader>
  /** Removes what the source keeps for readers of this name (a slot, a publication); nothing there is no failure. */
  endChanges(options: { readonly name: string; readonly signal: AbortSignal }): Promise<void>
}

export interface ChangeReader extends AsyncDisposable {
  /** Batches without end, and beats of an idle source. Pulling is flow credit; leaving the loop ends the reading. */
  read(options: { readonly signal: AbortSignal }): AsyncIterable<Batch | LogBeat>
  /** What was applied and recorded on the target: the source need not keep it any longer. */
  ack(upTo: Position): Promise<void>
}
