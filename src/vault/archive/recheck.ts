import type { LogBlock } from '#change'
import type { Storage } from '#storage'
import { backwards, type End } from './continuity.ts'
import type { Reading } from './object.ts'
import { openReader } from './reader.ts'

/**
 * Positions that come again after a gap are either read again, or a log that was reset and gives them out anew; only
 * the bytes tell. Taking the one for the other would throw the new log away: it is refused. Without the vault's identity
 * only the segment that the archive ends in is taken on trust.
 */
export async function checkKnown(
  end: End,
  block: LogBlock,
  how: {
    readonly storage: Storage
    readonly source: string
    readonly reading?: Reading | undefined
  },
  signal: AbortSignal,
): Promise<void> {
  const { storage, source, reading } = how
  const inLast = block.segment === end.segment
  if (!reading) {
    if (inLast) return
    throw backwards(end, block)
  }
  const reader = await openReader({ storage, source, reading, signal })
  const known = await reader.read(block.segment, { history: block.history, signal })
  const blockEnd = block.offset + block.bytes.length
  let at = 0
  for await (const bytes of known ?? []) {
    const from = Math.max(at, block.offset)
    const to = Math.max(from, Math.min(at + bytes.length, blockEnd))
    const ours = bytes.subarray(from - at, to - at)
    const theirs = block.bytes.subarray(from - block.offset, to - block.offset)
    if (!ours.equals(theirs)) throw backwards(end, block)
    at += bytes.length
    if (at >= blockEnd) return
  }
  if (at < (inLast ? end.offset : blockEnd)) throw backwards(end, block)
}
