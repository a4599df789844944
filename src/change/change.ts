/**
 * A point in a source's log. Only positions of one `history` can be compared, and then `at` sorts as plain
 * text; what the text means is the engine's own business. A history is what makes positions comparable:
 * a PostgreSQL system identifier and timeline, a MySQL server UUID.
 */
export type Position = {
  readonly history: string
  readonly at: string
}

/** A transaction that a log block completes. */
export type Commit = {
  /** The position just behind the commit record. */
  readonly at: string
  /** Commit time by the source's clock, microseconds since 1970. */
  readonly timeUs: bigint
  /** The engine's own name of it: an xid, a GTID. */
  readonly id: string
}

/** A run of native log bytes: consecutive in its segment, cut anywhere. */
export type LogBlock = {
  readonly kind: 'block'
  readonly history: string
  /** The native file that the bytes belong to: `000000010000000000000003`, `binlog.000012`, `00000002.history`. */
  readonly segment: string
  /** Where `bytes` begins in that file. */
  readonly offset: number
  readonly bytes: Buffer
  /** Position of the first byte, and the one behind the last: the next block's `first`, also across segments. */
  readonly first: string
  readonly next: string
  /** Transactions whose commit record ends in these bytes, in order. */
  readonly commits: readonly Commit[]
  /** The segment is complete with these bytes. */
  readonly closes: boolean
}

/** The source's word that at `timeUs` its log ended at `at`: what makes lag true on an idle source. */
export type LogBeat = {
  readonly kind: 'beat'
  readonly history: string
  readonly at: string
  readonly timeUs: bigint
}

/**
 * Where native log bytes come from: a server, or a journal.
 * Pulling is flow credit; leaving the loop, or the signal, ends the reading and frees the connection.
 */
export interface LogSource {
  /**
   * Yields blocks from `after` on, without a hole, for ever. Without `after` it starts where the source's
   * retained log allows a base taken from now on to be replayed. Throws `log-lost` when the source no longer
   * has the bytes behind `after`, `source-changed` when `after` belongs to another history that does not lead here.
   */
  read(
    after: Position | undefined,
    options: { readonly signal: AbortSignal },
  ): AsyncIterable<LogBlock | LogBeat>
  /** The log up to here is durable where it should be: called only after that is so. */
  ack(upTo: Position): Promise<void>
}

/** Where native log bytes go: a journal, or a vault's archive. */
export interface LogSink {
  /** Takes a block; may return before it is durable. Refuses with `gap` what does not continue the last one. */
  append(block: LogBlock, options: { readonly signal: AbortSignal }): Promise<void>
  /** What is durable so far; undefined when nothing is. */
  durable(): Position | undefined
}

/** An archived segment of the log. */
export type LogSegment = {
  readonly history: string
  readonly segment: string
  readonly first: string
  readonly next: string
  readonly sizeBytes: number
  /** False for the open tail of the log. */
  readonly complete: boolean
}

/** How an engine reads the archived log: the native bytes, checked and decrypted. */
export interface LogReader {
  /** Segments that hold anything behind `first`, in log order, following the history's successors. Throws `gap`. */
  segments(first: Position, options: { readonly signal: AbortSignal }): AsyncIterable<LogSegment>
  /** The bytes of one segment; undefined when the archive has none of that name. */
  read(
    segment: string,
    options: { readonly signal: AbortSignal; readonly history?: string | undefined },
  ): Promise<AsyncIterable<Buffer> | undefined>
}

/** A moment to go back to. */
export type Target =
  | { readonly kind: 'latest' }
  /** Before the first commit stamped later than this. */
  | { readonly kind: 'time'; readonly timeUs: bigint }
  /** Up to this position, what ends there included. */
  | { readonly kind: 'position'; readonly at: string }
  /** Up to this transaction (an xid, a GTID), it included. */
  | { readonly kind: 'commit'; readonly id: string }
  /** A point that was named on the source (`pg_create_restore_point`). */
  | { readonly kind: 'name'; readonly name: string }
