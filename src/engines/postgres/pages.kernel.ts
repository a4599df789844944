// PostgreSQL's page checksum: 32 interleaved FNV-1a sums with a shift mixed in, the block number, and a fold to 16 bits
// that is never zero. src/include/storage/checksum_impl.h.

const pageBytes = 8192
const lanes = 32
const prime = 16777619

// The offset basis of each lane; the values are part of the format.
const bases = Int32Array.of(
  0x5b1f36e9,
  0xb8525960,
  0x02ab50aa,
  0x1de66d2a,
  0x79ff467a,
  0x9bb9f8a3,
  0x217e7cd2,
  0x83e13d2c,
  0xf8d4474f,
  0xe39eb970,
  0x42c6ae16,
  0x993216fa,
  0x7b093b5d,
  0x98daff3c,
  0xf718902a,
  0x0b1c9cdb,
  0xe58f764b,
  0x187636bc,
  0x5d7b3bb1,
  0xe73de7de,
  0x92bec979,
  0xcca6c0b2,
  0x304a0979,
  0x85aa43d4,
  0x783125bb,
  0x6ca8eaa2,
  0xe407eac6,
  0x4b5cfc3e,
  0x9fbf8c76,
  0x15ca20be,
  0xf2ca9fd3,
  0x959bd756,
)

const sums = new Int32Array(lanes)
const words = new Int32Array(pageBytes / 4)
const wordBytes = Buffer.from(words.buffer)

/** The checksum that a page at `at` should bear as block `block` of its relation (of all its segments). */
export function pageChecksum(bytes: Buffer, at: number, block: number): number {
  bytes.copy(wordBytes, 0, at, at + pageBytes)
  // The checksum's own field, bytes 8 and 9, counts as zero.
  words[2] = words[2]! & 0xffff0000
  sums.set(bases)
  for (let row = 0; row < words.length; row += lanes) {
    for (let lane = 0; lane < lanes; lane += 1) {
      const mixed = sums[lane]! ^ words[row + lane]!
      sums[lane] = Math.imul(mixed, prime) ^ (mixed >>> 17)
    }
  }
  let result = 0
  for (let lane = 0; lane < lanes; lane += 1) {
    let sum = sums[lane]!
    sum = Math.imul(sum, prime) ^ (sum >>> 17)
    sum = Math.imul(sum, prime) ^ (sum >>> 17)
    result ^= sum
  }
  return (((result ^ block) >>> 0) % 65535) + 1
}

/** What stands in a page's header. */
export function storedChecksum(bytes: Buffer, at: number): number {
  return bytes.readUInt16LE(at + 8)
}

/** A page that was never written is all zeroes and bears no checksum: its `pd_upper` is zero. */
export function isNewPage(bytes: Buffer, at: number): boolean {
  return bytes.readUInt16LE(at + 14) === 0
}

/** The LSN of the last change of a page. */
export function pageLsn(bytes: Buffer, at: number): bigint {
  return (BigInt(bytes.readUInt32LE(at)) << 32n) | BigInt(bytes.readUInt32LE(at + 4))
}
