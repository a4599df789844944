import { Fault } from '#base/faults'

/** A table whose rows are cut into ranges of blocks. */
export type Blocks = {
  readonly count: number
  /** Of the table with what is stored beside it (TOAST). */
  readonly sizeBytes: number
}

/**
 * A range of a table: blocks from `first` on, up to and without `end`; to the end of the table, whatever comes there, when
 * there is none. Written `120-240`, `240-`.
 */
export type BlockRange = { readonly first: number; readonly end: number | undefined }

export type BlockCut = { readonly range: string; readonly sizeBytes: number }

/** Cuts a table into ranges of about so many bytes: they do not overlap, and the last has no end. */
export function cutBlocks(blocks: Blocks, chunkBytes: number): readonly BlockCut[] {
  const perBlock = Math.max(1, blocks.sizeBytes / Math.max(1, blocks.count))
  const count = Math.max(1, Math.round(blocks.sizeBytes / Math.max(1, chunkBytes)))
  const step = Math.max(1, Math.ceil(blocks.count / count))
  const cuts: BlockCut[] = []
  let first = 0
  do {
    const end = Math.min(first + step, blocks.count)
    const isLast = end >= blocks.count
    const sizeBytes = Math.round((end - first) * perBlock)
    cuts.push({ range: `${first}-${isLast ? '' : end}`, sizeBytes })
    first = end
  } while (first < blocks.count)
  return cuts
}

export function parseRange(text: string): BlockRange {
  const match = /^(\d{1,10})-(\d{1,10})?$/.exec(text)
  if (!match) throw new Fault('protocol', `read a chunk: ${JSON.stringify(text)} is no range`)
  const end = match[2] === undefined ? undefined : Number(match[2])
  return { first: Number(match[1]), end }
}

/** The condition that picks the rows of a range; undefined when it is the whole table. */
export function rangeCondition({ first, end }: BlockRange): string | undefined {
  const from = first === 0 ? undefined : `ctid >= '(${first},0)'::tid`
  const to = end === undefined ? undefined : `ctid < '(${end},0)'::tid`
  const both = [from, to].filter((part) => part !== undefined)
  return both.length === 0 ? undefined : both.join(' and ')
}
