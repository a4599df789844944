/** How to step over the columns of a row image. */
export type CellLayout = {
  readonly columns: number
  /** 0 for a value of one size, else the bytes of the length before it. */
  readonly lengthSizes: Uint8Array
  readonly sizes: Int32Array
  /** 1 for a column whose value may come as a patch. */
  readonly patchable: Uint8Array
}

/** The rows of one event, and how far they were taken. */
export type RowsJob = {
  readonly layout: CellLayout
  readonly bytes: Uint8Array
  at: number
  readonly end: number
  /** A byte for each column; undefined when all are there. For each image of a row. */
  readonly present: readonly (Uint8Array | undefined)[]
  /** Second images may have patches. */
  readonly partial: boolean
  /** Rows that were taken, all in all. */
  rows: number
  /** The taking stops at so many. */
  rowsMax: number
}

/** Pairs of numbers, and how many of them are taken. */
export type CellRoom = { readonly cells: Int32Array; used: number }

const cellNull = -1
const cellAbsent = -2

/**
 * Writes start and end of every cell of the rows that have room. `full` when there is none for the next, `broken` when an image
 * goes beyond the end.
 * https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html
 */
export function takeRows(job: RowsJob, room: CellRoom): 'done' | 'full' | 'broken' {
  const { layout, bytes, end, present, partial } = job
  const { cells } = room
  const images = present.length
  const size = layout.columns * 2
  // An image without any column has no bytes: there is at least one row.
  do {
    let out = room.used
    if (out + size * images > cells.length || job.rows >= job.rowsMax) return 'full'
    let at = job.at
    for (let image = 0; image < images; image++) {
      let patches = -1
      if (partial && image === 1) {
        // A packed number of options, the first of which says that a bit follows for each patchable column.
        const options = bytes[at++]!
        if (options > 1) return 'broken'
        if (options === 1) {
          patches = at
          at += (countOnes(layout.patchable) + 7) >> 3
        }
      }
      at = takeImage(layout, bytes, at, end, patches, present[image], cells, out)
      if (at < 0) return 'broken'
      out += size
    }
    // Rows without any byte would have no end.
    if (at === job.at && at < end) return 'broken'
    room.used = out
    job.at = at
    job.rows++
  } while (job.at < end)
  return 'done'
}

function countOnes(flags: Uint8Array): number {
  let count = 0
  for (let index = 0; index < flags.length; index++) count += flags[index]!
  return count
}

/** One image; returns where it ends, or -1. The end of a patch is written inverted. */
function takeImage(
  layout: CellLayout,
  bytes: Uint8Array,
  nulls: number,
  end: number,
  patches: number,
  present: Uint8Array | undefined,
  cells: Int32Array,
  out: number,
): number {
  const { columns, lengthSizes, sizes, patchable } = layout
  let at = nulls + (((present === undefined ? columns : countOnes(present)) + 7) >> 3)
  if (at > end) return -1
  let bit = 0
  let patch = 0
  for (let index = 0; index < columns; index++, out += 2) {
    let isPatch = false
    if (patches >= 0 && patchable[index] === 1) {
      isPatch = ((bytes[patches + (patch >> 3)]! >> (patch & 7)) & 1) === 1
      patch++
    }
    if (present !== undefined && present[index] === 0) {
      cells[out] = cellAbsent
      cells[out + 1] = 0
      continue
    }
    const isNull = (bytes[nulls + (bit >> 3)]! & (1 << (bit & 7))) !== 0
    bit++
    if (isNull) {
      cells[out] = cellNull
      cells[out + 1] = 0
      continue
    }
    let size = sizes[index]!
    const lengthSize = lengthSizes[index]!
    // Numbers beyond the end of the buffer are undefined, and zero to these operators: the check below finds them.
    if (lengthSize === 1) {
      size = bytes[at]!
    } else if (lengthSize === 2) {
      size = bytes[at]! | (bytes[at + 1]! << 8)
    } else if (lengthSize === 3) {
      size = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16)
    } else if (lengthSize === 4) {
      size = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16)
      size += bytes[at + 3]! * 0x1000000
    }
    at += lengthSize
    cells[out] = at
    at += size
    if (!(at <= end)) return -1
    cells[out + 1] = isPatch ? ~at : at
  }
  return at
}
