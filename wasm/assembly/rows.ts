// Row packets of MySQL's text protocol into lines for LOAD DATA: cells separated by tabs, \N for NULL, and the bytes
// with a meaning there escaped. The plain twin is in src/engines/mysql/rows.kernel.ts, whose tests compare the two.
// All memory belongs to the caller; what is beside the return value goes to the first words of it.

const outAt: usize = 0
const rowsAt: usize = 4
const stopAt: usize = 8
const sumAt: usize = 16
// A line that comes in pieces: four sums of XXH64, and how many bytes went into them.
const stripesAt: usize = 32
const totalAt: usize = 64

// Why a run ended: all whole packets were taken; no room in the output; a packet for the caller to look at; damage.
const needsBytes: u32 = 0
const needsRoom: u32 = 1
const needsCaller: u32 = 2
const damaged: u32 = 3

// Vectors are read and written whole: both areas have so many bytes to spare.
const slack: usize = 16

const tab = i8x16.splat(9)
const newline = i8x16.splat(10)
const backslash = i8x16.splat(0x5c)
const zero = i8x16.splat(0)

/**
 * Takes packets from `from` on, headers included, while they are whole, no longer than `largest` and end before `end`.
 * The first `digested` cells of each line, what ends them included, go into the digest, the sum of the XXH64 of each: it
 * does not depend on the order of rows, and two equal rows do not cancel each other. Returns how far it came.
 */
export function takeRows(from: usize, end: usize, columns: u32, out: usize, outEnd: usize, largest: usize, digested: u32): usize {
  let at = from
  let sum = load<u64>(sumAt)
  let rows: u32 = 0
  let stop = needsBytes
  while (end - at >= 4) {
    const size = <usize>(load<u32>(at) & 0xffffff)
    if (size > largest) {
      stop = needsCaller
      break
    }
    if (end - at < size + 4) break
    const head = load<u8>(at, 4)
    if ((head == 0xfe && size < 9) || head == 0xff || size == 0) {
      stop = needsCaller
      break
    }
    if (out + 2 * size + 2 * columns + slack > outEnd) {
      stop = needsRoom
      break
    }
    const last = at + 4 + size
    const line = out
    let digestEnd = out
    let cell = at + 4
    for (let column: u32 = 0; column < columns; column++) {
      if (cell >= last) {
        stop = damaged
        break
      }
      let length: usize = load<u8>(cell++)
      if (length == 0xfb) {
        store<u16>(out, 0x4e5c)
        out += 2
      } else {
        if (length == 0xfc) {
          length = load<u16>(cell)
          cell += 2
        } else if (length == 0xfd) {
          length = load<u32>(cell) & 0xffffff
          cell += 3
        } else if (length > 0xfd) {
          stop = damaged
          break
        }
        if (cell + length > last) {
          stop = damaged
          break
        }
        out = escape(cell, length, out)
        cell += length
      }
      store<u8>(out++, 9)
      if (column + 1 == digested) digestEnd = out
    }
    if (stop == damaged || cell != last) {
      stop = damaged
      break
    }
    store<u8>(out - 1, 10)
    if (digested != 0) sum += hash(line, digestEnd - line)
    rows++
    at = last
  }
  store<u32>(outAt, <u32>out)
  store<u32>(rowsAt, rows)
  store<u32>(stopAt, stop)
  store<u64>(sumAt, sum)
  return at
}

/** Copies a cell sixteen bytes at a time up to the next byte that needs its escape. */
function escape(from: usize, length: usize, to: usize): usize {
  const end = from + length
  while (from < end) {
    const bytes = v128.load(from)
    v128.store(to, bytes)
    const special = v128.or(
      v128.or(i8x16.eq(bytes, tab), i8x16.eq(bytes, newline)),
      v128.or(i8x16.eq(bytes, backslash), i8x16.eq(bytes, zero)),
    )
    const left = end - from
    const mask = <u32>i8x16.bitmask(special)
    const clean = mask == 0 ? <usize>16 : <usize>ctz(mask)
    if (clean >= left) return to + left
    from += clean
    to += clean
    if (mask == 0) continue
    const byte = load<u8>(from++)
    store<u8>(to++, 0x5c)
    store<u8>(to++, byte == 9 ? 0x74 : byte == 10 ? 0x6e : byte == 0 ? 0x30 : 0x5c)
  }
  return to
}

// XXH64 with seed 0. https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
const prime1: u64 = 0x9e3779b185ebca87
const prime2: u64 = 0xc2b2ae3d27d4eb4f
const prime3: u64 = 0x165667b19e3779f9
const prime4: u64 = 0x85ebca77c2b2ae63
const prime5: u64 = 0x27d4eb2f165667c5

// @ts-ignore: decorator
@inline function mix(sum: u64, lane: u64): u64 {
  return rotl<u64>(sum + lane * prime2, 31) * prime1
}

// @ts-ignore: decorator
@inline function merge(sum: u64, stripe: u64): u64 {
  return (sum ^ mix(0, stripe)) * prime1 + prime4
}

// @ts-ignore: decorator
@inline function converge(a: u64, b: u64, c: u64, d: u64): u64 {
  const sum = rotl<u64>(a, 1) + rotl<u64>(b, 7) + rotl<u64>(c, 12) + rotl<u64>(d, 18)
  return merge(merge(merge(merge(sum, a), b), c), d)
}

function hash(at: usize, size: usize): u64 {
  let sum = prime5
  let left = size
  if (left >= 32) {
    let a = prime1 + prime2, b = prime2, c: u64 = 0, d: u64 = 0 - prime1
    for (; left >= 32; left -= 32, at += 32) {
      a = mix(a, load<u64>(at))
      b = mix(b, load<u64>(at, 8))
      c = mix(c, load<u64>(at, 16))
      d = mix(d, load<u64>(at, 24))
    }
    sum = converge(a, b, c, d)
  }
  return finish(sum + <u64>size, at, left)
}

/** What is left of a line behind its whole stripes. */
function finish(from: u64, at: usize, size: usize): u64 {
  let sum = from
  let left = size
  for (; left >= 8; left -= 8, at += 8) {
    sum = rotl<u64>(sum ^ mix(0, load<u64>(at)), 27) * prime1 + prime4
  }
  if (left >= 4) {
    sum = rotl<u64>(sum ^ (<u64>load<u32>(at) * prime1), 23) * prime2 + prime3
    left -= 4
    at += 4
  }
  for (; left > 0; left--, at++) sum = rotl<u64>(sum ^ (<u64>load<u8>(at) * prime5), 11) * prime1
  sum = (sum ^ (sum >> 33)) * prime2
  sum = (sum ^ (sum >> 29)) * prime3
  return sum ^ (sum >> 32)
}

/** A line that comes in pieces begins. */
export function beginLine(): void {
  store<u64>(stripesAt, prime1 + prime2)
  store<u64>(stripesAt + 8, prime2)
  store<u64>(stripesAt + 16, 0)
  store<u64>(stripesAt + 24, 0 - prime1)
  store<u64>(totalAt, 0)
}

/** Takes the whole stripes of a piece; returns how far it came. */
export function addToLine(at: usize, size: usize): usize {
  let a = load<u64>(stripesAt), b = load<u64>(stripesAt, 8), c = load<u64>(stripesAt, 16), d = load<u64>(stripesAt, 24)
  const end = at + (size & ~31)
  for (; at < end; at += 32) {
    a = mix(a, load<u64>(at))
    b = mix(b, load<u64>(at, 8))
    c = mix(c, load<u64>(at, 16))
    d = mix(d, load<u64>(at, 24))
  }
  store<u64>(stripesAt, a)
  store<u64>(stripesAt, b, 8)
  store<u64>(stripesAt, c, 16)
  store<u64>(stripesAt, d, 24)
  store<u64>(totalAt, load<u64>(totalAt) + <u64>(size & ~31))
  return end
}

/** The line ends with less than a stripe, and goes into the digest. */
export function endLine(at: usize, size: usize): void {
  const total = load<u64>(totalAt)
  const sum = total == 0
    ? prime5
    : converge(load<u64>(stripesAt), load<u64>(stripesAt, 8), load<u64>(stripesAt, 16), load<u64>(stripesAt, 24))
  store<u64>(sumAt, load<u64>(sumAt) + finish(sum + total + <u64>size, at, size))
}

export function clearDigest(): void {
  store<u64>(sumAt, 0)
}
