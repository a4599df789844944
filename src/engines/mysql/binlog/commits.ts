import {
  decodeGtid,
  decodeMariadbGtid,
  decodeQuery,
  type EventHeader,
  eventType,
  type GtidEvent,
} from './event.ts'
import { decodeTaggedGtid } from './tagged.ts'

/** A transaction that an event ended. */
export type Ended = {
  /** The GTID, or an empty text where the server gives none. */
  readonly id: string
  readonly timeUs: bigint
}

const watched: ReadonlySet<number> = new Set([
  eventType.gtid,
  eventType.anonymousGtid,
  eventType.gtidTagged,
  eventType.mariadbGtid,
  eventType.query,
  eventType.queryCompressed,
])

/** How much of an event's body `CommitFinder` wants: none, or all of it. */
export function wantsBody(type: number): boolean {
  return watched.has(type)
}

/** A statement that opens, ends or stands alone; the text is all that tells it. */
export function verbOf(sql: Buffer): 'begin' | 'end' | 'xa-start' | 'other' {
  if (sql.length > 512) return 'other'
  const text = sql.toString('latin1').trim().toUpperCase()
  if (text === 'BEGIN') return 'begin'
  if (text === 'COMMIT' || text === 'ROLLBACK') return 'end'
  if (/^XA\s+(START|BEGIN)\b/.test(text)) return 'xa-start'
  return 'other'
}

/** Follows the events of a binary log and tells where transactions end. Pure: no I/O, events in order. */
export class CommitFinder {
  #gtid: GtidEvent | undefined
  #inside = false

  /** Whether the log stands between transactions. */
  get idle(): boolean {
    return !this.#inside && this.#gtid === undefined
  }

  /** A crash cut the transaction that was under way: the server wrote no more of it. */
  reset(): void {
    this.#gtid = undefined
    this.#inside = false
  }

  /** The group that is under way, if the log names it. */
  get current(): GtidEvent | undefined {
    return this.#gtid
  }

  /** Takes the next event (`body` without header and checksum, needed only where `wantsBody`). */
  take(header: EventHeader, body: Buffer | undefined): Ended | undefined {
    switch (header.type) {
      case eventType.gtid:
      case eventType.anonymousGtid:
        this.#gtid = body && decodeGtid(body)
        if (header.type === eventType.anonymousGtid && this.#gtid) {
          this.#gtid = { ...this.#gtid, id: '' }
        }
        return undefined
      case eventType.gtidTagged:
        this.#gtid = body && decodeTaggedGtid(body)
        return undefined
      case eventType.mariadbGtid:
        this.#gtid = body && decodeMariadbGtid(body, header.serverId)
        // No BEGIN follows: the event itself opens the transaction.
        this.#inside = this.#gtid?.standalone === false
        return undefined
      case eventType.query:
      case eventType.queryCompressed:
        return body && this.#query(header, body)
      case eventType.xid:
      case eventType.xaPrepare:
      case eventType.transactionPayload:
        return this.#end(header)
      default:
        return undefined
    }
  }

  #query(header: EventHeader, body: Buffer): Ended | undefined {
    const { sql } = decodeQuery(body, header.type)
    const verb = verbOf(sql)
    if (verb === 'begin' || verb === 'xa-start') {
      this.#inside = true
      return undefined
    }
    if (verb === 'end' || !this.#inside || isXaEnding(sql)) return this.#end(header)
    return undefined
  }

  #end(header: EventHeader): Ended {
    const ended = {
      id: this.#gtid?.id ?? '',
      timeUs: this.#gtid?.timeUs ?? BigInt(header.timestamp) * 1_000_000n,
    }
    this.reset()
    return ended
  }
}

/** `XA COMMIT` and `XA ROLLBACK` are groups of their own, which MariaDB does not mark as standing alone. */
function isXaEnding(sql: Buffer): boolean {
  return sql.length < 512 && /^\s*XA\s+(COMMIT|ROLLBACK)\b/i.test(sql.toString('latin1'))
}
