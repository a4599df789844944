import type { LogBlock } from '#change'
import { position } from './archive.ts'
import { noise } from './file-tree.ts'

const blockBytes = 1024 * 1024
/** More than a fold keeps in memory, and nothing of it compresses: an object of three parts of 16 MiB at most. */
const blocksOfSegment = 36
export const segmentBytes = blocksOfSegment * blockBytes

/** A log of large segments: block by block, each with one commit at its end. */
export function* largeBlocks(from: number, to: number): Generator<LogBlock> {
  for (let at = from; at < to; at += blockBytes) {
    const number = at / blockBytes
    const next = at + blockBytes
    yield {
      kind: 'block',
      history: 'h1',
      segment: largeSegment(Math.floor(number / blocksOfSegment)),
      offset: at % segmentBytes,
      bytes: noise(blockBytes, number + 1),
      first: position(at),
      next: position(next),
      commits: [{ at: position(next), timeUs: BigInt(number) * 1_000_000n, id: `tx${number}` }],
      closes: next % segmentBytes === 0,
    }
  }
}

export function largeSegment(number: number): string {
  return `seg-${String(number).padStart(6, '0')}`
}
