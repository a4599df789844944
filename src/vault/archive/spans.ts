import type { Storage } from '#storage'
import type { LogSpan } from './archive.ts'
import type { StoredObject } from './inventory.ts'
import { newestLease } from './lease.ts'
import { type LogIndex, type Stretch } from './log-index.ts'
import { readHead, type Trust } from './object.ts'
import type { LogRecord } from './record.ts'

/** Heads read in search of the first commit of a span: a span that begins with more objects without one tells of none. */
const searchMax = 64

/** What the archive holds without a hole, in log order; read from names and a few heads, without any secret. */
export async function readSpans(
  how: { readonly storage: Storage; readonly source: string; readonly trust: Trust },
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
  const lease = await newestLease({ ...how, keyring: how.trust.keyring }, signal)
  const last = spans.at(-1)
  const note = lease?.note
  if (!last || note?.end.history !== last.history || note.end.at !== last.next) return spans
  const newer = last.completeUs === undefined || note.completeUs > last.completeUs
  return newer ? [...spans.slice(0, -1), { ...last, completeUs: note.completeUs }] : spans
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
