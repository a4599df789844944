/** What a use of an endpoint needs and does not find; the statement that mends it, where one does. */
export type Finding = {
  readonly severity: 'blocks' | 'warns' | 'notes'
  /** Stable name: `no-replication-right`, `binlog-format-statement`. */
  readonly code: string
  readonly said: string
  /** SQL or a setting line, to be run by the operator. */
  readonly mend?: string | undefined
}
