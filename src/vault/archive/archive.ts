import type { LogBeat, LogBlock, LogSink, Position } from '#change'
import type { Degraded } from './lease.ts'

/** What the archive holds of one source's log, without a hole: from `first` up to `next`. */
export type LogSpan = {
  readonly source: string
  readonly history: string
  /** It goes on where the span before it ended, in a successor history (a timeline switch): no hole between them. */
  readonly continues: boolean
  readonly first: string
  readonly next: string
  /** By the source's word (blocks and beats) the archive was complete up to here at this time. */
  readonly completeUs?: bigint | undefined
  /** The archiver had stored the log up to here: what lay behind `next` is gone from the store since. The last span only. */
  readonly gone?: Position | undefined
  /** Commit times of the first and the latest transaction in it, microseconds since 1970. */
  readonly firstCommitUs?: bigint | undefined
  readonly lastCommitUs?: bigint | undefined
  /** As stored: packed and encrypted. */
  readonly bytes: number
  readonly objects: number
}

/** What a check of the log or the catalog found. */
export type LogFinding = {
  /** `damaged`: something cannot be restored. `warns`: something the operator should know. `notes`: harmless. */
  readonly severity: 'damaged' | 'warns' | 'notes'
  /** A code of the table of faults, or `stranger`, `leftover`, `hole`, `unnamed`. */
  readonly code: string
  /** Key of the object. */
  readonly object?: string | undefined
  readonly said: string
}

/**
 * The open end of one source's log archive. `append` cuts parts after at most 400 ms or a byte limit, ships them in
 * order, and folds a segment's parts into one object when it closes. One caller appends; when anything fails, every
 * further call throws that failure, and the task opens the writer anew, which goes on from what the store holds.
 */
export interface ArchiveWriter extends LogSink, AsyncDisposable {
  /** Where the log that was taken in ends: what is read from the source next begins here. */
  readonly end: Position | undefined
  /** False where the store has no conditional put: a second archiver is then found out late instead of refused. */
  readonly exclusive: boolean
  /** Waits while too much is on its way. What is known already is passed over; `gap` refuses what does not go on. */
  append(block: LogBlock, options: { readonly signal: AbortSignal }): Promise<void>
  durable(): Position | undefined
  /** Called after each part that the store has answered for, in order. */
  onDurable(listener: (position: Position, shippedMs: number) => void): void
  /** Takes the source's word of where its log ended at a time; it travels with the next part, or with the lease. */
  beat(beat: LogBeat): void
  /** Durability is less than what was asked for, or as it should be again: whoever looks into the archive can read it. */
  degraded(state: Degraded | undefined): void
  /** The next block may begin anywhere: the log between is lost, and the archive says so. */
  allowGap(): void
  /** Ships what is buffered and waits until it is durable. */
  flush(options: { readonly signal: AbortSignal }): Promise<void>
  /** Ends only by throwing: what ended the writing, also when nobody has anything to append. */
  untilFailed(options: { readonly signal: AbortSignal }): Promise<never>
  /** As `flush`, and waits until every segment that ended is folded. */
  settle(options: { readonly signal: AbortSignal }): Promise<void>
}
