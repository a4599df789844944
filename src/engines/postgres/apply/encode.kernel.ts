/** Cells of one row, in the order in which they are sent: `places` has where each one is in `cells`, from `base` on. */
export type Cells = {
  readonly bytes: Buffer
  readonly cells: Int32Array
  readonly base: number
  readonly places: Int32Array
}

/** A message's type and size. */
export const headBytes = 5
/** What the arrays of one statement take together, so that a message is gathered whole. */
export const arraysMaxBytes = 512 << 10

const arrayHeadBytes = 24
const textOid = 25
const [tab, newline, carriage, backslash, letterN] = [0x09, 0x0a, 0x0d, 0x5c, 0x4e]

export function putInt32(out: Buffer, at: number, value: number): void {
  out[at] = value >>> 24
  out[at + 1] = value >>> 16
  out[at + 2] = value >>> 8
  out[at + 3] = value
}

export function putBytes(out: Buffer, at: number, bytes: Buffer): number {
  return at + bytes.copy(out, at)
}

function putRange(out: Buffer, at: number, bytes: Buffer, from: number, end: number): number {
  if (end - from > 48) return at + bytes.copy(out, at, from, end)
  let to = at
  for (let next = from; next < end; next += 1, to += 1) out[to] = bytes[next]!
  return to
}

/** Bytes of a row's values: a count, the values with their sizes, and the format of the answer. */
export function valuesBytes({ cells, base, places }: Cells): number {
  let size = 4 + places.length * 4
  for (let index = 0; index < places.length; index += 1) {
    const at = base + places[index]!
    if (cells[at]! >= 0) size += cells[at + 1]! - cells[at]!
  }
  return size
}

/** The count, and the values with their sizes. */
export function putValues(out: Buffer, to: number, { bytes, cells, base, places }: Cells): number {
  out[to] = places.length >>> 8
  out[to + 1] = places.length
  let fill = to + 2
  for (let index = 0; index < places.length; index += 1) {
    const at = base + places[index]!
    const from = cells[at]!
    const end = cells[at + 1]!
    putInt32(out, fill, from < 0 ? -1 : end - from)
    fill += 4
    if (from >= 0) fill = putRange(out, fill, bytes, from, end)
  }
  return fill
}

/** Bytes of the values of so many rows as arrays. */
export function arraysBytes(rows: readonly Cells[]): number {
  let size = 4 + (rows[0]?.places.length ?? 0) * arrayHeadBytes
  for (let index = 0; index < rows.length; index += 1) size += valuesBytes(rows[index]!)
  return size
}

/**
 * The count, and for each place an array of texts of all rows, in binary: texts need no quoting there.
 * https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c (array_recv)
 */
export function putArrays(out: Buffer, to: number, rows: readonly Cells[]): number {
  const width = rows[0]!.places.length
  out[to] = width >>> 8
  out[to + 1] = width
  let fill = to + 2
  for (let place = 0; place < width; place += 1) {
    const head = fill
    fill += arrayHeadBytes
    let nulls = 0
    for (let row = 0; row < rows.length; row += 1) {
      const { bytes, cells, base, places } = rows[row]!
      const at = base + places[place]!
      const from = cells[at]!
      if (from < 0) {
        nulls = 1
        putInt32(out, fill, -1)
        fill += 4
        continue
      }
      const end = cells[at + 1]!
      putInt32(out, fill, end - from)
      fill = putRange(out, fill + 4, bytes, from, end)
    }
    putInt32(out, head, fill - head - 4)
    putInt32(out, head + 4, 1)
    putInt32(out, head + 8, nulls)
    putInt32(out, head + 12, textOid)
    putInt32(out, head + 16, rows.length)
    putInt32(out, head + 20, 1)
  }
  return fill
}

/** A row takes no more than this as a line of COPY. */
export function copyRowBytesMax({ cells, base, places }: Cells): number {
  let size = 1 + places.length * 3
  for (let index = 0; index < places.length; index += 1) {
    const at = base + places[index]!
    if (cells[at]! >= 0) size += (cells[at + 1]! - cells[at]!) * 2
  }
  return size
}

/** A row as a line of COPY's text form. */
export function putCopyRow(out: Buffer, to: number, { bytes, cells, base, places }: Cells): number {
  let fill = to
  for (let index = 0; index < places.length; index += 1) {
    if (index > 0) {
      out[fill] = tab
      fill += 1
    }
    const at = base + places[index]!
    const from = cells[at]!
    if (from < 0) {
      out[fill] = backslash
      out[fill + 1] = letterN
      fill += 2
      continue
    }
    const end = cells[at + 1]!
    for (let next = from; next < end; next += 1) {
      const byte = bytes[next]!
      if (byte === backslash || byte === tab || byte === newline || byte === carriage) {
        out[fill] = backslash
        // Behind a backslash a tab or a line's end is itself.
        out[fill + 1] = byte
        fill += 2
      } else {
        out[fill] = byte
        fill += 1
      }
    }
  }
  out[fill] = newline
  return fill + 1
}
