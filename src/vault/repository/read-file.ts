import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { Fault, fromSystem } from '#base/faults'
import type { Hole } from '#change/tree'
import type { Chunker } from './chunker.ts'
import { chunkBytesMin } from './limits.ts'

// Not blocking on a FIFO, nor following a link, that took the file's place since it was looked at.
const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

const zeroChunksMin = 8

/** Fills the chunker from a file, piece by piece: `visit` takes the cuts out, and hears how many bytes came, and whether they were the last. Of a large hole it hears instead how many chunks of zeroes come next. */
export function readFile(
  { path, holes = [] }: { readonly path: Buffer; readonly holes?: readonly Hole[] | undefined },
  chunker: Chunker,
  visit: (sizeBytes: number, isLast: boolean, zeroChunks: number) => void,
): void {
  const file = system(path, () => openSync(path, flags))
  try {
    const facts = fstatSync(file)
    if (!facts.isFile()) {
      throw new Fault('io', `read ${path.toString()}: it is no longer a regular file`)
    }
    for (let total = 0, isLast = false; !isLast; ) {
      const zeroChunks = countZeroChunks(holes, total - chunker.pendingBytes)
      if (zeroChunks > 0) {
        const skipped = zeroChunks * chunkBytesMin - chunker.pendingBytes
        chunker.reset()
        total += skipped
        visit(skipped, false, zeroChunks)
      }
      const room = chunker.room()
      const at = total
      const size = system(path, () => readSync(file, room, 0, room.length, at))
      total += size
      // Short of the room and up to the known size: the end, with no further call to see it.
      isLast = size === 0 || (size < room.length && total >= facts.size)
      chunker.filled(size)
      visit(size, isLast, 0)
    }
  } finally {
    closeSync(file)
  }
}

/**
 * How many chunks of zeroes begin at an offset where a chunk begins: zeroes are cut as soon as a chunk may end,
 * since their fingerprint is zero. A few are not worth the trouble.
 */
function countZeroChunks(holes: readonly Hole[], offset: number): number {
  const hole = holes.find(({ start, end }) => start <= offset && offset < end)
  const count = hole ? Math.floor((hole.end - offset) / chunkBytesMin) : 0
  return count < zeroChunksMin ? 0 : count
}

function system<T>(path: Buffer, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromSystem(error, `read ${path.toString()}`)
  }
}
