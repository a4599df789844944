import { Fault } from '#base/faults'
import { eachLimit } from '#base/tasks'
import type { Storage } from '#storage'
import type { LogFinding } from './archive.ts'
import { cover, listLog, readHeads, type StoredObject } from './inventory.ts'
import { leaseKey, type LeaseRecord, newestLease } from './lease.ts'
import { readIndex } from './log-index.ts'
import { openObject, type Reading, unpack } from './object.ts'
import { follows, type SignedRecord } from './record.ts'
import { goneTail } from './spans.ts'

export type CheckOptions = {
  readonly storage: Storage
  readonly source: string
  readonly reading: Reading
  /** Decrypt and unpack every object, not the records alone. */
  readonly readData: boolean
  /** Number of the last part that was let go on purpose; undefined where that is not known. */
  readonly trimmedTo?: number | undefined
  readonly signal: AbortSignal
}

const objectsAtOnce = 4
const batchObjects = 512

/**
 * Checks a source's log: each object's name, record and signature, the chain from the first to the last, and with
 * `readData` every byte. Returns all findings, each naming its object; throws only when the store does not answer.
 */
export async function checkLog(options: CheckOptions): Promise<LogFinding[]> {
  const { storage, source, reading, signal } = options
  const findings: LogFinding[] = []
  // Before the listing: what it tells of must then be listed.
  const lease = await newestLease({ storage, source, keyring: reading.keyring }, signal)
  const { objects, strangers } = await listLog(storage, source, signal)
  const index = await readIndex(storage, source, reading, signal)
  for (const key of strangers) {
    findings.push({
      severity: 'notes',
      code: 'stranger',
      object: key,
      said: 'no archiver wrote it',
    })
  }
  const doubtful = [...index.rivals, ...index.leftovers]
  for (const { key } of doubtful) {
    const said = 'left behind by an archiver that died; the next archiver removes it'
    findings.push({ severity: 'notes', code: 'leftover', object: key, said })
  }
  const out = new Set(doubtful.map(({ key }) => key))
  const wanted = objects.filter(({ key }) => !out.has(key))
  const { chosen } = cover(wanted)
  const inChain = new Set(chosen.map(({ key }) => key))
  let before: { readonly object: StoredObject; readonly head: Head } | undefined
  // In batches: a log of years has more records than memory should hold.
  for (let at = 0; at < wanted.length; at += batchObjects) {
    const batch = wanted.slice(at, at + batchObjects)
    const heads = await readHeads(storage, batch, reading, signal)
    for (const [i, object] of batch.entries()) {
      const head = heads[i]
      if (head && 'error' in head) findings.push(damaged(object, head.error))
      if (!inChain.has(object.key)) continue
      if (before) findings.push(...checkLink(before, { object, head }))
      before = { object, head }
    }
  }
  findings.push(...checkBeginning(chosen[0], options.trimmedTo), ...checkEnd(before, lease))
  if (options.readData) findings.push(...(await checkData(wanted, options)))
  return unique(findings)
}

type Head = SignedRecord | { readonly error: unknown } | undefined

type Placed = { readonly object: StoredObject; readonly head: Head }

/** What is missing before the first object must have been trimmed. */
function checkBeginning(
  first: StoredObject | undefined,
  trimmedTo: number | undefined,
): LogFinding[] {
  if (!first || trimmedTo === undefined || first.sequenceFirst <= trimmedTo + 1) return []
  const said = `parts ${trimmedTo + 1} to ${first.sequenceFirst - 1} before it are missing, and no trim removed them`
  return [{ severity: 'damaged', code: 'gap', object: first.key, said }]
}

/** The log must reach as far as its archiver had stored it. */
function checkEnd(last: Placed | undefined, lease: LeaseRecord | undefined): LogFinding[] {
  const head = last?.head
  // What its own record does not say is told of already.
  if (head && 'error' in head) return []
  if (last && !lease) {
    const said =
      'no lease that can be believed tells how far the log went: newer objects may be missing'
    const key = leaseKey(last.object.source, head?.record.epoch ?? 0)
    return [{ severity: 'warns', code: 'missing', object: key, said }]
  }
  if (!lease?.tail) return []
  const { history = '', next = '', sequenceLast: sequence = 0 } = head?.record ?? {}
  const gone = goneTail(lease.tail, { history, next, sequence })
  if (!gone) return []
  const said = `the log was stored up to ${gone.at} (part ${lease.tail.sequence}); what followed ${next || 'its beginning'} is gone`
  return [{ severity: 'damaged', code: 'gap', object: last?.object.key, said }]
}

function checkLink(before: Placed, after: Placed): LogFinding[] {
  const [previous, own] = [before.head, after.head]
  if (!own || !previous || 'error' in own || 'error' in previous) return []
  const { key } = after.object
  const { record } = own
  const apart = record.sequenceFirst - previous.record.sequenceLast
  if (!follows(previous, own)) {
    const said =
      apart === 1
        ? `it does not link to ${before.object.key}`
        : `${apart - 1} objects are missing between ${before.object.key} and it`
    return [{ severity: 'damaged', code: 'gap', object: key, said }]
  }
  if (record.hole) {
    const said = `the source lost its log between ${record.after?.at} and ${record.first}`
    return [{ severity: 'warns', code: 'hole', object: key, said }]
  }
  if (continuous(previous, own)) return []
  const said = `it begins at ${record.first}, not at ${previous.record.next}`
  return [{ severity: 'damaged', code: 'gap', object: key, said }]
}

function continuous(previous: SignedRecord, own: SignedRecord): boolean {
  const [a, b] = [previous.record, own.record]
  if (a.history !== b.history) return b.after?.history === a.history && b.after.at === a.next
  if (a.next !== b.first) return false
  return a.segment === b.segment ? a.offset + a.sizeBytes === b.offset : b.offset === 0
}

async function checkData(
  objects: readonly StoredObject[],
  options: CheckOptions,
): Promise<LogFinding[]> {
  const { storage, reading, signal } = options
  const findings: LogFinding[] = []
  await eachLimit(objects, objectsAtOnce, signal, async (object, inner) => {
    try {
      const opened = await openObject(storage, object.key, reading, inner)
      const pieces = unpack(opened, object.key)
      while (!(await pieces.next()).done) inner.throwIfAborted()
    } catch (error) {
      inner.throwIfAborted()
      findings.push(damaged(object, error))
    }
  })
  return findings.toSorted((a, b) => ((a.object ?? '') < (b.object ?? '') ? -1 : 1))
}

/** What is wrong with one object is a finding; a store that does not answer is not. */
function damaged(object: StoredObject, error: unknown): LogFinding {
  if (!(error instanceof Fault) || error.recovery === 'retry' || error.code === 'denied')
    throw error
  return { severity: 'damaged', code: error.code, object: object.key, said: error.message }
}

/** A damaged head is found again with the data: it is told once. */
function unique(findings: readonly LogFinding[]): LogFinding[] {
  const seen = new Set<string>()
  return findings.filter(({ code, object }) => {
    const id = `${code} ${object}`
    const isNew = !seen.has(id)
    seen.add(id)
    return isNew
  })
}
