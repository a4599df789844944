import { cellAbsent, cellNull, type RowRun } from '#change/batch'
import type { Sameness } from './types.ts'

/** A key of which hashes are taken. */
export type HashedKey = {
  readonly seed: number
  /** Undefined when all rows have one hash. */
  readonly columns: readonly { readonly index: number; readonly sameness: Sameness }[] | undefined
  /** Whether NULL is like NULL in it. */
  readonly nullsConflict: boolean
}

const offset = 0x811c9dc5
const prime = 0x01000193
const [zero, minus, point, blank] = [0x30, 0x2d, 0x2e, 0x20]

/** The hash of a name: FNV-1a. */
export function nameHash(name: string): number {
  const bytes = Buffer.from(name)
  return hashBytes(bytes, 0, bytes.length, offset)
}

function hashBytes(bytes: Buffer, from: number, to: number, seed: number): number {
  let hash = seed
  for (let at = from; at < to; at += 1) hash = Math.imul(hash ^ bytes[at]!, prime)
  return hash >>> 0
}

/** Where the part of a value ends that its comparison looks at; its sign of zero is left to `startOf`. */
export function endOf(bytes: Buffer, from: number, end: number, sameness: Sameness): number {
  let to = end
  if (sameness === 'blanks') {
    while (to > from && bytes[to - 1] === blank) to -= 1
  } else if (sameness === 'number' && hasPoint(bytes, from, to)) {
    while (bytes[to - 1] === zero) to -= 1
    if (bytes[to - 1] === point) to -= 1
  }
  return to
}

/** As `endOf`: `-0` of a float is `0`. */
export function startOf(bytes: Buffer, from: number, end: number, sameness: Sameness): number {
  const isMinusZero =
    sameness === 'zero' && end === from + 2 && bytes[from] === minus && bytes[from + 1] === zero
  return isMinusZero ? from + 1 : from
}

function hasPoint(bytes: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) if (bytes[at] === point) return true
  return false
}

const nothing = -1

/** The hash of what an image has in a key; `nothing` when it cannot conflict, or is not known. */
function hashImage(run: RowRun, image: number, key: HashedKey, other: number): number {
  const { bytes, cells } = run
  let hash = key.seed
  const columns = key.columns!
  for (let column = 0; column < columns.length; column += 1) {
    const { index, sameness } = columns[column]!
    let at = image + index * 2
    // What an update does not send of a value is as it was.
    if (cells[at] === cellAbsent && other >= 0) at = other + index * 2
    const from = cells[at]!
    if (from === cellAbsent) return nothing
    if (from === cellNull) {
      if (!key.nullsConflict) return nothing
      hash = Math.imul(hash ^ 0x1ff, prime)
      continue
    }
    const end = cells[at + 1]!
    const start = startOf(bytes, from, end, sameness)
    hash = hashBytes(bytes, start, endOf(bytes, from, end, sameness), hash)
    hash = Math.imul(hash ^ 0x100, prime)
  }
  return hash >>> 0
}

/** The hashes of all keys of a run's rows, old and new. */
export function hashKeys(run: RowRun, keys: readonly HashedKey[]): Uint32Array {
  const width = run.relation.columns.length * 2
  const isUpdate = run.kind === 'update'
  const step = isUpdate ? width * 2 : width
  const hashes = new Uint32Array(run.rows * keys.length * (isUpdate ? 2 : 1))
  let fill = 0
  for (let at = 0; at < keys.length; at += 1) {
    const key = keys[at]!
    if (!key.columns) {
      hashes[fill] = key.seed
      fill += 1
      continue
    }
    for (let row = 0; row < run.rows; row += 1) {
      const image = row * step
      const first = hashImage(run, image, key, -1)
      if (first !== nothing) {
        hashes[fill] = first
        fill += 1
      }
      if (!isUpdate) continue
      const second = hashImage(run, image + width, key, image)
      if (second === nothing || second === first) continue
      hashes[fill] = second
      fill += 1
    }
  }
  return fill === hashes.length ? hashes : hashes.subarray(0, fill)
}
