import type { LogBlock, LogSink, Position } from '#change'

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
  /** Commit times of the first and the last transaction in it, microseconds since 1970. */
  readonly firstCommitUs?: bigint | undefined
  readonly lastCommitUs?: bigint | undefined
  readonly bytes: number
  readonly objects: number
}

/**
 * The open end of one source's log archive. `append` cuts parts after at most 400 ms or a byte limit, ships them in
 * order, and folds a segment's parts into one object when it closes.
 */
export interface ArchiveWriter extends LogSink, AsyncDisposable {
  append(block: LogBlock, options: { readonly signal: AbortSignal }): Promise<void>
  durable(): Position | undefined
  /** Called after each part that the store has answered for, in order. */
  onDurable(listener: (position: Position, shippedMs: number) => void): void
  /** Ships what is buffered and waits until it is durable. */
  flush(options: { readonly signal: AbortSignal }): Promise<void>
}
