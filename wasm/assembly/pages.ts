// Sums over PostgreSQL's pages: the page checksum, whose 32 lanes are made for vectors, and CRC-32C, which a backup
// manifest bears. Plain twins: src/engines/postgres/pages.kernel.ts, and in the tests.
// All memory belongs to the caller, who says where the tables of the CRC go: 16 KiB at `tables`, and a room to work in.

const prime = i32x4.splat(16777619)

// @ts-ignore: decorator
@inline function step(sum: v128, words: v128): v128 {
  const mixed = v128.xor(sum, words)
  return v128.xor(i32x4.mul(mixed, prime), i32x4.shr_u(mixed, 17))
}

// @ts-ignore: decorator
@inline function last(sum: v128): v128 {
  const zero = i32x4.splat(0)
  return step(step(sum, zero), zero)
}

/**
 * Compares the checksums of `count` pages of 8 KiB from `at` on with those in their headers; the first is block `block`
 * of its relation. A page that was never written (`pd_upper` is zero) bears none. For each page a byte at `out`: 1 when
 * the checksum is wrong. Returns how many are. src/include/storage/checksum_impl.h
 */
export function checkPages(at: usize, count: u32, block: u32, out: usize): u32 {
  let wrong: u32 = 0
  // The checksum's own field, bytes 8 and 9, counts as zero.
  const own = i32x4(-1, -1, 0xffff0000, -1)
  for (let page: u32 = 0; page < count; page++, block++, out++, at += 8192) {
    store<u8>(out, 0)
    if (load<u16>(at, 14) == 0) continue
    let a = i32x4(0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a), b = i32x4(0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c)
    let c = i32x4(0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa), d = i32x4(0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb)
    let e = i32x4(0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de), f = i32x4(0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4)
    let g = i32x4(0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e), h = i32x4(0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756)
    let words = v128.and(v128.load(at), own)
    for (let p = at, end = at + 8192; p < end; p += 128) {
      a = step(a, words)
      b = step(b, v128.load(p, 16))
      c = step(c, v128.load(p, 32))
      d = step(d, v128.load(p, 48))
      e = step(e, v128.load(p, 64))
      f = step(f, v128.load(p, 80))
      g = step(g, v128.load(p, 96))
      h = step(h, v128.load(p, 112))
      words = v128.load(p, 128)
    }
    const ab = v128.xor(last(a), last(b)), cd = v128.xor(last(c), last(d))
    const ef = v128.xor(last(e), last(f)), gh = v128.xor(last(g), last(h))
    const all = v128.xor(v128.xor(ab, cd), v128.xor(ef, gh))
    const low = i64x2.extract_lane(all, 0) ^ i64x2.extract_lane(all, 1)
    const sum = (<u32>low ^ <u32>(low >> 32) ^ block) % 65535 + 1
    if (sum == load<u16>(at, 8)) continue
    store<u8>(out, 1)
    wrong++
  }
  return wrong
}

/** Fills the tables of `crc32c`: sixteen of 256 words. The polynomial is Castagnoli's, bits reflected (RFC 3720, appendix B). */
export function makeTables(tables: usize): void {
  for (let byte: u32 = 0; byte < 256; byte++) {
    let sum = byte
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (0x82f63b78 & (0 - (sum & 1)))
    store<u32>(tables + (byte << 2), sum)
  }
  for (let byte: u32 = 0; byte < 256; byte++) {
    let sum = load<u32>(tables + (byte << 2))
    for (let table: usize = 1; table < 16; table++) {
      sum = (sum >>> 8) ^ load<u32>(tables + ((sum & 255) << 2))
      store<u32>(tables + (table << 10) + (byte << 2), sum)
    }
  }
}

// @ts-ignore: decorator
@inline function four(tables: usize, word: u32, table: usize): u32 {
  const at = tables + (table << 10)
  return (
    load<u32>(at + 3072 + ((word & 255) << 2)) ^
    load<u32>(at + 2048 + (((word >>> 8) & 255) << 2)) ^
    load<u32>(at + 1024 + (((word >>> 16) & 255) << 2)) ^
    load<u32>(at + ((word >>> 24) << 2))
  )
}

// Sixteen bytes a step, by the tables alone.
function byTables(at: usize, size: usize, before: u32, tables: usize): u32 {
  let sum = before
  const end = at + size
  for (; at + 16 <= end; at += 16) {
    sum =
      four(tables, load<u32>(at) ^ sum, 12) ^
      four(tables, load<u32>(at, 4), 8) ^
      four(tables, load<u32>(at, 8), 4) ^
      four(tables, load<u32>(at, 12), 0)
  }
  for (; at < end; at++) sum = (sum >>> 8) ^ load<u32>(tables + ((sum ^ load<u8>(at)) & 255) * 4)
  return sum
}

// x^42568 + x^28592 + x^19928 + 1 is a multiple of the polynomial: a byte may be taken out of a message if it is added to
// the bytes so far behind it, which leaves the sum as it is. Found by search: the least FAR of which all three are over
// 1 KiB, so that what is read was stored long before.
const NEAR: usize = 1747
const MIDDLE: usize = 2830
const FAR: usize = 5321
/** What is kept of the bytes as they were taken out, and so many are taken out at a time. */
const KEPT: usize = 5328
const WINDOW: usize = 8192

// @ts-ignore: decorator
@inline function behind(out: usize): v128 {
  return v128.xor(v128.xor(v128.load(out - NEAR), v128.load(out - MIDDLE)), v128.load(out - FAR))
}

function addBytes(to: usize, from: usize, size: usize): void {
  const end = to + size
  for (; to + 16 <= end; to += 16, from += 16) v128.store(to, v128.xor(v128.load(to), v128.load(from)))
  for (; to < end; to++, from++) store<u8>(to, load<u8>(to) ^ load<u8>(from))
}

/**
 * The sum of all bytes so far, given that of those before (0 at the beginning). Taking bytes out is a few loads for
 * sixteen of them, tables are one for each byte: only the last bytes are left to the tables. `room` is 13520 bytes.
 */
export function crc32c(at: usize, size: usize, before: u32, tables: usize, room: usize): u32 {
  const first = ~before
  if (size < 2 * KEPT) return ~byTables(at, size, first, tables)
  const out = room + KEPT
  // The sum so far is added to the first four bytes: as bytes that stood FAR before these.
  memory.fill(room, 0, KEPT)
  store<u32>(out - FAR, first)
  let left = (size - KEPT) & ~15
  const rest = size - left
  while (left > 0) {
    const part = min(left, WINDOW)
    for (let q = out, end = out + part; q < end; q += 16, at += 16) v128.store(q, v128.xor(v128.load(at), behind(q)))
    memory.copy(room, room + part, KEPT)
    left -= part
  }
  // Bytes FAR - 1 and less before the end were added to the last ones, and those are not taken out any more.
  memory.copy(out, at, rest)
  addBytes(out, out - NEAR, NEAR)
  addBytes(out, out - MIDDLE, MIDDLE)
  addBytes(out, out - FAR, FAR)
  return ~byTables(out, rest, 0, tables)
}
