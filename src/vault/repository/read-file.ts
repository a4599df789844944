import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { Fault, fromSystem } from '#base/faults'
import type { Chunker } from './chunker.ts'

// Not blocking on a FIFO, nor following a link, that took the file's place since it was looked at.
const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** Fills the chunker from a file, piece by piece: `visit` takes the cuts out, and hears how many bytes came, and whether they were the last. */
export function readFile(
  path: Buffer,
  chunker: Chunker,
  visit: (sizeBytes: number, isLast: boolean) => void,
): void {
  const file = system(path, () => openSync(path, flags))
  try {
    const facts = fstatSync(file)
    if (!facts.isFile()) {
      throw new Fault('io', `read ${path.toString()}: it is no longer a regular file`)
    }
    for (let total = 0, isLast = false; !isLast; ) {
      const room = chunker.room()
      const size = system(path, () => readSync(file, room, 0, room.length, null))
      total += size
      // Short of the room and up to the known size: the end, with no further call to see it.
      isLast = size === 0 || (size < room.length && total >= facts.size)
      chunker.filled(size)
      visit(size, isLast)
    }
  } finally {
    closeSync(file)
  }
}

function system<T>(path: Buffer, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromSystem(error, `read ${path.toString()}`)
  }
}
