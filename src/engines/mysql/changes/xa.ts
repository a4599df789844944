import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Place } from '../position.ts'
import type { RawEvent } from './events.ts'

/** Events of prepared transactions that are held in memory; those beyond are read again when they commit. */
const heldBytesMax = 16 * 1024 * 1024
/** Prepared transactions that wait. Servers have far lower limits of their own. */
const waitingMax = 100_000

/** A transaction that is prepared: its rows stand in the log between these places, and count when it commits. */
export type Prepared = {
  readonly first: Place
  readonly last: Place
  /** Undefined when there were too many. */
  readonly events: readonly RawEvent[] | undefined
  readonly sizeBytes: number
}

/** Gathers the rows of transactions of two phases, which other transactions may come between. */
export class XaKeeper {
  readonly #waiting = new Map<string, Prepared>()
  #heldBytes = 0
  #open: { readonly first: Place; events: RawEvent[] | undefined; sizeBytes: number } | undefined

  /** Whether the transaction that is under way is one of two phases. */
  get gathering(): boolean {
    return this.#open !== undefined
  }

  begin(first: Place): void {
    this.#open = { first, events: [], sizeBytes: 0 }
  }

  add(event: RawEvent): undefined {
    const open = this.#open
    if (!open?.events) return undefined
    const size = event.end - event.start
    if (this.#heldBytes + open.sizeBytes + size > heldBytesMax) {
      open.events = undefined
      open.sizeBytes = 0
      return undefined
    }
    open.sizeBytes += size
    const bytes = Buffer.from(event.bytes.subarray(event.start, event.end))
    open.events.push({ ...event, bytes, start: 0, end: size })
    return undefined
  }

  /** Ends the gathering. */
  take(last: Place): Prepared | undefined {
    const open = this.#open
    this.#open = undefined
    return open && { ...open, last }
  }

  keep(xid: string, prepared: Prepared): void {
    if (this.#waiting.size >= waitingMax) {
      throw new Fault('full', `keep prepared transactions: more than ${waitingMax} wait`, {
        hint: 'Commit or roll back what XA RECOVER shows.',
      })
    }
    this.#waiting.set(xid, prepared)
    this.#heldBytes += prepared.sizeBytes
  }

  /** A transaction comes to its end, whichever; undefined when it was prepared before the reading began. */
  release(xid: string): Prepared | undefined {
    const prepared = this.#waiting.get(xid)
    this.#waiting.delete(xid)
    this.#heldBytes -= prepared?.sizeBytes ?? 0
    return prepared
  }
}

/** Names a transaction as `decodeXaPrepare` does; `XA COMMIT X'6162',X'',1`. */
export function parseXa(text: string): { readonly verb: string; readonly xid: string } | undefined {
  const match = /^\s*XA\s+(\w+)\s+X'([0-9a-f]*)',X'([0-9a-f]*)',(\d+)/i.exec(text)
  if (!match) return undefined
  const [, verb = '', global = '', branch = '', format] = match
  return { verb: verb.toLowerCase(), xid: `${global}.${branch}.${format}`.toLowerCase() }
}

export function decodeXaPrepare(body: Buffer): {
  readonly onePhase: boolean
  readonly xid: string
} {
  const reader = new Reader(body, 'XA prepare event')
  const onePhase = reader.u8() !== 0
  const format = reader.u32le()
  const globalSize = reader.u32le()
  const branchSize = reader.u32le()
  const global = reader.view(globalSize).toString('hex')
  const branch = reader.view(branchSize).toString('hex')
  return { onePhase, xid: `${global}.${branch}.${format}` }
}
