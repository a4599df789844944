import type { Position } from '#change'
import type { Storage } from '#storage'
import type { LogSpan } from './archive.ts'
import type { StoredObject } from './inventory.ts'
import { type LeaseRecord, type LeaseTail, newestLease } from './lease.ts'
import { type LogIndex, type Stretch } from './log-index.ts'
import { readHead, type Trust } from './object.ts'
import type { LogRecord } from './record.ts'

/** Heads read in search of the first commit of a span: a span that begins with more objects without one tells of none. */
const searchMax = 64

/** What the archive holds without a hole, in log order; read from names and a few heads, without any secret. */
export async function readSpans(
  how: {
    readonly storage: Storage
    readonly source: string
    readonly trust: Trust
    /** The newest lease, as it was before the index was read. */
    readonly lease?: LeaseRecord | undefined
  },
  index: LogIndex,
  signal: AbortSignal,
): Promise<LogSpan[]> {
  const head = async (object: StoredObject | undefined) =>
    object && (await readHead(how.storage, object, how.trust, signal)).record
  const spans: LogSpan[] = []
  for (const stretch of index.stretches) {
    const span = await readSpan(stretch, how.source, head)
    if (span) spans.push(span)
  }
  const lease = how.lease ?? (await newestLease({ ...how, keyring: how.trust.keyring }, signal))
  const last = spans.at(-1)
  if (!last || !lease) return spans
  const sequence = index.stretches.at(-1)?.segments.at(-1)?.objects.at(-1)?.sequenceLast ?? 0
  const gone = goneTail(lease.tail, { history: last.history, next: last.next, sequence })
  const { note } = lease
  const tells = note?.end.history === last.history && note.end.at === last.next
  const newer = tells && (last.completeUs === undefined || note.completeUs > last.completeUs)
  const completeUs = newer ? note.completeUs : last.completeUs
  return [...spans.slice(0, -1), { ...last, completeUs, ...(gone && { gone }) }]
}

/** Where the log ended by the archiver's word, when what is stored ends before: the newest objects are gone. */
export function goneTail(
  tail: LeaseTail | undefined,
  end: { readonly history: string; readonly next: string; readonly sequence: number },
): Position | undefined {
  if (!tail) return undefined
  const further =
    tail.end.history === end.history ? tail.end.at > end.next : tail.sequence > end.sequence
  return further ? tail.end : undefined
}

async function readSpan(
  stretch: Stretch,
  source: string,
  head: (object: StoredObject | undefined) => Promise<LogRecord | undefined>,
): Promise<LogSpan | undefined> {
  const objects = stretch.segments.flatMap((segment) => segment.objects)
  const first = await head(objects[0])
  const last = await head(objects.at(-1))
  if (!first || !last) return undefined
  let firstCommitUs: bigint | undefined
  for (const object of objects.slice(0, searchMax)) {
    firstCommitUs = (await head(object))?.firstCommitUs
    if (firstCommitUs !== undefined) break
  }
  return {
    source,
    history: stretch.history,
    continues: stretch.continues,
    first: first.first,
    next: last.next,
    completeUs: last.completeUs,
    firstCommitUs,
    lastCommitUs: last.latestUs,
    bytes: objects.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    objects: objects.length,
  }
}
