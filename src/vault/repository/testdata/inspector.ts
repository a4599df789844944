import type { InspectorRoom } from '#base/blocks'

/** Tells the first and the last byte of each block, and what it was asked with. */
export function createInspector({ memory }: InspectorRoom) {
  const bytes = new Uint8Array(memory.buffer)
  return (at: number, sizeBytes: number, offset: number, setup: unknown) => {
    return { first: bytes[at], last: bytes[at + sizeBytes - 1], offset, setup }
  }
}
