import { assert } from '#base/faults'
import type { LogBlock, Position } from '#change'
import type { RecordDraft } from './object.ts'
import type { Piece } from './piece.ts'

/** A part that is being filled. */
export type Filling = {
  readonly blocks: LogBlock[]
  readonly hole: boolean
  readonly after: Position | undefined
  bytes: number
}

/** Where the chain stands for the next part to be cut. */
export type Chain = {
  readonly sequence: number
  readonly link: string
  readonly latestUs: bigint | undefined
}

/** Whether a run of bytes goes into the part: one segment of one history, and no more than a part may hold. */
export function fits(
  filling: Filling,
  run: LogBlock,
  after: Position | undefined,
  bytesMax: number,
): boolean {
  const last = filling.blocks.at(-1)
  const same = last?.segment === run.segment && last.history === run.history && !last.closes
  return same && after === undefined && filling.bytes + run.bytes.length <= bytesMax
}

/** The record and the content of a part that is cut now. */
export function draftPart(
  { blocks, hole, after }: Filling,
  chain: Chain,
  about: Pick<RecordDraft, 'source' | 'epoch' | 'writerEpoch' | 'completeUs'>,
): { readonly draft: RecordDraft; readonly piece: Piece } {
  const [head] = blocks
  const last = blocks.at(-1)
  assert(head && last, 'a part that is cut holds something')
  const { history, segment, offset, first } = head
  const { next, closes } = last
  const commits = blocks.flatMap((block) => block.commits)
  const bytes = blocks.length === 1 ? head.bytes : Buffer.concat(blocks.map((block) => block.bytes))
  const sequence = chain.sequence + (hole ? 2 : 1)
  const draft: RecordDraft = {
    ...about,
    kind: 'part',
    history,
    segment,
    offset,
    sizeBytes: bytes.length,
    first,
    next,
    closes,
    sequenceFirst: sequence,
    sequenceLast: sequence,
    previous: chain.link,
    after,
    hole,
    commits: commits.length,
    firstCommitUs: commits[0]?.timeUs,
    lastCommitUs: commits.at(-1)?.timeUs,
    latestUs: commits.reduce(
      (latest: bigint | undefined, { timeUs }) =>
        latest === undefined || timeUs > latest ? timeUs : latest,
      chain.latestUs,
    ),
  }
  return { draft, piece: { first, next, commits, bytes } }
}
