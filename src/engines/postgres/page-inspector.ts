import type { Inspection, InspectorRoom, Written } from '#base/blocks'
import { formatCrc32c, joinCrc32c, PageSums, pagesMax } from './page-sums.ts'
import { isSound } from './pages.ts'

const pageBytes = 8192

/** What the inspector is to do with the blocks of a file. */
type Setup = {
  /** The block of its relation that the first page is; undefined for a file without page checksums. */
  readonly firstBlock: number | undefined
  /** Where the backup began: pages changed from there on may be torn. */
  readonly before: bigint
  /** Whether the manifest will tell a sum. */
  readonly isSummed: boolean
}

/** CRC-32C of a block, and the pages of the file in it that bear wrong checksums. */
type BlockSaid = {
  readonly sum: number
  readonly sizeBytes: number
  readonly damaged: readonly number[]
}

/** Sums and page checksums of a base's file, computed where its bytes are hashed and packed. */
export function inspectPages(setup: Setup): Inspection {
  return { module: import.meta.url, setup }
}

/** What was said of all blocks of a file, joined: its sum as a manifest tells it, and its damaged pages. */
export function joinSaid({ said }: Written): { sum: string; damaged: readonly number[] } {
  const blocks = said as readonly BlockSaid[]
  const sum = blocks.reduce((before, one) => joinCrc32c(before, one.sum, one.sizeBytes), 0)
  return { sum: formatCrc32c(sum), damaged: blocks.flatMap((one) => one.damaged) }
}

export function createInspector(room: InspectorRoom) {
  const sums = new PageSums(room)
  return (at: number, sizeBytes: number, offset: number, setup: unknown): BlockSaid => {
    const { firstBlock, before, isSummed } = setup as Setup
    const damaged: number[] = []
    if (firstBlock !== undefined) {
      const pages = Math.floor(sizeBytes / pageBytes)
      for (let done = 0; done < pages; done += pagesMax) {
        const count = Math.min(pagesMax, pages - done)
        const first = Math.floor(offset / pageBytes) + done
        const start = at + done * pageBytes
        for (const wrong of sums.wrongPages(start, count, firstBlock + first)) {
          const page = first + wrong
          const place = start + wrong * pageBytes
          if (!isSound(sums.bytes, place, firstBlock + page, before)) damaged.push(page)
        }
      }
    }
    return { sum: isSummed ? sums.crc32c(at, sizeBytes) : 0, sizeBytes, damaged }
  }
}
