import type { Log } from '#base/log'
import type { CellForm, Relation, RowRun, Statement, Truncation } from './batch.ts'
import type { Position } from './change.ts'
import type { ObjectName, Selection } from './schema.ts'

/**
 * What becomes of a change that does not meet the row that the source had: a row that is there already, is gone, or holds
 * other values. `stop` ends the link, `ignore` leaves the target's row, `overwrite` makes it the source's.
 */
export type ConflictPolicy = 'stop' | 'ignore' | 'overwrite'

export type OpenApply = {
  /** Names the link: how far it is stands on the target under this name. */
  readonly link: string
  /** Sessions that write side by side. */
  readonly lanes: number
  readonly selection: Pick<Selection, 'accepts' | 'map'>
  readonly conflicts: ConflictPolicy
  readonly log: Log
  readonly signal: AbortSignal
}

/** Takes changes into a live target. */
export interface ApplyTarget {
  openApply(options: OpenApply): Promise<Applier>
  /** Removes what the target keeps for a link of this name; nothing there is no failure. */
  endApply(options: { readonly link: string; readonly signal: AbortSignal }): Promise<void>
}

/** How far a link is, as it stands on the target. */
export type Mark = {
  /** Every transaction up to here is on the target. */
  readonly low: Position
  /** Those behind `low` that are on it too (`at` of their positions): lanes commit out of order. */
  readonly beyond: readonly string[]
}

/**
 * Writes changes into a target so that each is there once, whatever dies: what says so (a mark) is committed together with
 * the data. Every lane keeps a mark of its own, of the transactions that it committed; `applied` puts them together.
 */
export interface Applier extends AsyncDisposable {
  /** What it reads of cells, best first. */
  readonly forms: readonly CellForm[]
  /** As many as were asked for. One call at a time on each. */
  readonly lanes: readonly ApplyLane[]
  /** Undefined for a link that has not begun. */
  applied(options: { readonly signal: AbortSignal }): Promise<Mark | undefined>
  /**
   * Finds the table that a relation's rows go to: before its first run, and again behind a statement. Throws `different` when
   * they cannot be written there (no such table or column, a column that wants a value and gets none).
   */
  prepare(relation: Relation, options: { readonly signal: AbortSignal }): Promise<ApplyTable>
  /**
   * Runs a statement of the source's language (a definition) under the target's names, while no lane has a transaction open,
   * and marks it. What cannot be committed together with its mark is noted before, so that after a crash it is run once.
   * A statement on what the selection does not accept is only marked.
   */
  define(statement: Statement, mark: Mark, options: { readonly signal: AbortSignal }): Promise<void>
}

/** A table of the target, as the rows of one relation meet it. */
export interface ApplyTable {
  readonly relation: Relation
  readonly target: ObjectName
  /**
   * Hashes of what each row of a run touches: its values, old and new, in every unique key of the target, and in the keys that
   * its foreign keys point to where the target follows those. What the target holds equal has equal hashes (collations,
   * padding, signs of zero); others may. Rows that no key names touch the table as a whole. Order does not matter.
   */
  keys(run: RowRun): Uint32Array
}

export type WriteOptions = {
  /**
   * The copy may have brought these changes already (its rows are as of several positions): rows that are there are replaced,
   * those that are gone are let be, and neither is a conflict.
   */
  readonly converge: boolean
  /**
   * All that came before is committed: a conflict is a real one. Without it a lane that is one of several settles none, but
   * throws `conflict` whatever the policy.
   */
  readonly alone?: boolean | undefined
  readonly signal: AbortSignal
}

/** What became of changes: rows on the target, and conflicts that the policy settled, each recorded with its images. */
export type Written = { readonly rows: number; readonly conflicts: number }

/** A session of a target, with at most one transaction open: `write` opens it. */
export interface ApplyLane {
  /**
   * Writes in this order into the open transaction. Bytes of the changes are free again when it returns. After a throw the
   * transaction is rolled back: a fault to be retried where it may go another time (a deadlock, a lock that was waited for too
   * long), `conflict` for a row that is not as the source had it and a policy that stops; with several lanes that may be one
   * that another has not committed yet.
   */
  write(changes: readonly (RowRun | Truncation)[], options: WriteOptions): Promise<Written>
  /** Commits what is open, or nothing, together with the mark. */
  commit(mark: Mark, options: { readonly signal: AbortSignal }): Promise<void>
  /** Drops what is open. */
  rollback(): Promise<void>
}
