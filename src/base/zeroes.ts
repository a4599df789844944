const blockBytes = 4096
const zeroBlock = Buffer.alloc(blockBytes)

/** The range of the bytes that is left when whole blocks of zeroes, of 4 KiB, are dropped at both ends. */
export function withoutZeroEnds(bytes: Uint8Array): {
  readonly start: number
  readonly end: number
} {
  let start = 0
  let end = bytes.length
  while (start + blockBytes <= end && isZeroBlock(bytes, start)) start += blockBytes
  while (end - blockBytes >= start && isZeroBlock(bytes, end - blockBytes)) end -= blockBytes
  return { start, end }
}

function isZeroBlock(bytes: Uint8Array, at: number): boolean {
  return zeroBlock.equals(bytes.subarray(at, at + blockBytes))
}
