import { Fault } from '#base/faults'
import type { LogBlock, Position } from '#change'
import { encodeText } from './names.ts'
import { pieceBytesMax } from './piece.ts'

/** Where the log that was taken in ends. */
export type End = {
  readonly history: string
  readonly segment: string
  /** Bytes of the segment that were taken in. */
  readonly offset: number
  readonly at: string
  readonly closed: boolean
}

export type Admission =
  | { readonly kind: 'known' }
  | {
      readonly kind: 'next'
      readonly block: LogBlock
      /** Where the log stood, when the block does not go on in the same history without a hole. */
      readonly after: Position | undefined
      readonly hole: boolean
    }

/**
 * Decides what a block is to the log so far: known already, next (what is known of it cut off), or no continuation,
 * which is a `gap` unless a hole was allowed. Pure.
 */
export function admit(end: End | undefined, block: LogBlock, holeAllowed: boolean): Admission {
  if (!end) return { kind: 'next', block, after: undefined, hole: false }
  const after = { history: end.history, at: end.at }
  // A source yields another history only when that one follows; after a restart it refuses with source-changed.
  if (block.history !== end.history) return { kind: 'next', block, after, hole: holeAllowed }
  const rest = block.segment === end.segment ? restOf(end, block) : restInOther(end, block)
  if (rest === 'known') return { kind: 'known' }
  if (rest) return { kind: 'next', block: rest, after: undefined, hole: false }
  if (holeAllowed) {
    if (encodeText(block.first) < encodeText(end.at)) throw backwards(end, block)
    return { kind: 'next', block, after, hole: true }
  }
  throw new Fault(
    'gap',
    `append ${block.segment} from byte ${block.offset} at ${block.first}: the log so far ends in ${end.segment} at byte ${end.offset}, ${end.at}`,
    {
      hint: 'Read the source from where the archive ends, or take a new base and declare the gap.',
    },
  )
}

/** Whether a block begins before the end of the log so far, in the same history. */
export function overlaps(end: End, block: LogBlock): boolean {
  if (block.history !== end.history) return false
  return block.segment === end.segment
    ? block.offset < end.offset
    : encodeText(block.first) < encodeText(end.at)
}

/** Positions of one history that were given out twice cannot be told apart in a restore. */
export function backwards(end: End, block: LogBlock): Fault {
  return new Fault(
    'source-changed',
    `append ${block.segment} at ${block.first}: the archive holds this history up to ${end.at} already`,
    {
      hint: 'The log of the source was reset: protect it under another --name.',
      recovery: 'stop',
    },
  )
}

function restOf(end: End, block: LogBlock): LogBlock | 'known' | undefined {
  const known = end.offset - block.offset
  if (known < 0) return undefined
  if (known === 0) {
    if (end.closed) return block.bytes.length === 0 ? 'known' : undefined
    return block.first === end.at ? block : undefined
  }
  if (end.closed) return known >= block.bytes.length ? 'known' : undefined
  // Bytes of a block that was cut in the middle may be known beyond the last position that is: then only that is new.
  const closes = block.closes && known <= block.bytes.length
  if (known >= block.bytes.length && !closes && block.next <= end.at) return 'known'
  return {
    ...block,
    offset: end.offset,
    bytes: block.bytes.subarray(known),
    first: end.at,
    next: block.next > end.at ? block.next : end.at,
    commits: block.commits.filter(({ at }) => at > end.at),
    closes,
  }
}

function restInOther(end: End, block: LogBlock): LogBlock | 'known' | undefined {
  if (block.offset === 0 && block.first === end.at) return block
  return block.next <= end.at ? 'known' : undefined
}

/** The end of the log with a block taken in. */
export function endBehind(block: LogBlock): End {
  return {
    history: block.history,
    segment: block.segment,
    offset: block.offset + block.bytes.length,
    at: block.next,
    closed: block.closes,
  }
}

/**
 * Cuts a block into runs of at most `bytesMax`. Inside a block no position is known: the log has reached the block's
 * end only with its last run.
 */
export function* cutBlock(block: LogBlock, bytesMax = pieceBytesMax): Generator<LogBlock> {
  let from = 0
  for (; block.bytes.length - from > bytesMax; from += bytesMax) {
    yield {
      ...block,
      offset: block.offset + from,
      bytes: block.bytes.subarray(from, from + bytesMax),
      next: block.first,
      commits: [],
      closes: false,
    }
  }
  yield { ...block, offset: block.offset + from, bytes: block.bytes.subarray(from) }
}
