// Row packets of MySQL's text protocol into lines for LOAD DATA: cells separated by tabs, \N for NULL, and the bytes
// with a meaning there escaped. The plain twin is in src/engines/mysql/rows.kernel.ts, whose tests compare the two.
// All memory belongs to the caller; what is beside the return value goes to the first words of it.

const outAt: usize = 0
const rowsAt: usize = 4
const stopAt: usize = 8

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
 * Returns how far it came.
 */
export function takeRows(from: usize, end: usize, columns: u32, out: usize, outEnd: usize, largest: usize): usize {
  let at = from
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
    }
    if (stop == damaged || cell != last) {
      stop = damaged
      break
    }
    store<u8>(out - 1, 10)
    rows++
    at = last
  }
  store<u32>(outAt, <u32>out)
  store<u32>(rowsAt, rows)
  store<u32>(stopAt, stop)
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
