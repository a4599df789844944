import type { RelationColumn } from '#change/batch'
import { columnType } from '../changes/table-map.ts'
import { isUnsigned } from '../changes/columns.ts'
import { createCellReader, type ReadCell } from '../values.ts'
import type { TargetColumn } from './target-table.ts'

/** Mixes a cell's value into a hash, or says that nothing can be told of it: it may equal values of any other look. */
export type HashCell = (hash: number, bytes: Buffer, start: number, end: number) => number

export type CellHash = {
  readonly mixCell: HashCell
  /** Texts that look otherwise may be equal: not every one of them has a hash. */
  readonly folded: boolean
}

/** No hash: the value stands for all of its key. */
export const anyValue = -1

/**
 * How a cell of a key is hashed, so that what the target holds equal has equal hashes; undefined where nothing of it can be
 * hashed, and the other columns have to do.
 */
export function createHash(column: RelationColumn, target: TargetColumn): CellHash | undefined {
  const mixCell = chooseHash(column, target)
  return mixCell && { mixCell, folded: mixCell === hashFolded }
}

function chooseHash(column: RelationColumn, target: TargetColumn): HashCell | undefined {
  const { code, type } = column
  switch (code) {
    case columnType.tiny:
    case columnType.short:
    case columnType.int24:
    case columnType.long:
      return target.word.endsWith('int') ? hashInteger(code, isUnsigned(type)) : undefined
    case columnType.longlong:
      return target.word.endsWith('int') ? hashLong : undefined
    case columnType.varchar:
    case columnType.varString:
    case columnType.string:
    case columnType.blob:
      return hashText(column, target)
    case columnType.date:
    case columnType.newdate:
    case columnType.year:
    case columnType.bit:
    case columnType.decimal:
    case columnType.datetime2:
    case columnType.timestamp2:
    case columnType.time2:
      // Another form of the type on the target may hold equal what is not.
      return sameForm(type, target.type) ? hashRead(column) : undefined
    default:
      return undefined
  }
}

function sameForm(source: string, target: string): boolean {
  const plain = (type: string) =>
    type
      .toLowerCase()
      .replace(/^year\(4\)/, 'year')
      .replaceAll(/ (?:unsigned|zerofill|\/\*.*?\*\/)/g, '')
  return plain(source) === plain(target)
}

/** Numbers of all sizes alike: tables that are merged may have several. */
function hashInteger(code: number, unsigned: boolean): HashCell {
  const size = { 1: 1, 2: 2, 9: 3, 3: 4 }[code] ?? 4
  return (hash, bytes, at) => {
    const value = unsigned ? bytes.readUIntLE(at, size) : bytes.readIntLE(at, size)
    return mix(mix(hash, value | 0), value < 0 ? -1 : 0)
  }
}

const hashLong: HashCell = (hash, bytes, at) =>
  mix(mix(hash, bytes.readInt32LE(at)), bytes.readInt32LE(at + 4))

/** By its text, without the signs that make no difference. */
function hashRead(column: RelationColumn): HashCell {
  const read: ReadCell = createCellReader(column)
  return (hash, bytes, start, end) => {
    const value = read(bytes, start, end)
    const text = typeof value === 'string' ? value : value.toString('latin1')
    const plain = Buffer.from(/^-[0.:]*$/.test(text) ? text.slice(1) : text)
    return mixBytes(hash, plain, 0, plain.length)
  }
}

const utf8 = /^utf8/
const space = 0x20

function hashText(column: RelationColumn, target: TargetColumn): HashCell | undefined {
  const { charset } = column
  if (/^(?:uuid|inet)/i.test(column.type) || !/char|text|binary|blob/.test(target.word)) {
    return undefined
  }
  // Zero bytes at the end of a BINARY are not in the log, those of a VARBINARY are.
  if (target.collation === undefined) return charset === 'binary' ? hashTrimmed : undefined
  if (charset === undefined || charset === 'binary') return undefined
  const sameCharset =
    charset === target.charset || (utf8.test(charset) && utf8.test(target.charset ?? ''))
  // Of several passes, in which letters may have no weight at all.
  if (target.collation.endsWith('_czech_cs')) return undefined
  if (target.collation.endsWith('_bin') && sameCharset) return hashTrimmed
  return hashFolded
}

/** Padding makes no difference: spaces and, in wide character sets, the zero bytes between them. */
const hashTrimmed: HashCell = (hash, bytes, start, end) => {
  let last = end
  while (last > start && (bytes[last - 1] === space || bytes[last - 1] === 0)) last--
  return mixBytes(hash, bytes, start, last)
}

/**
 * Letters of ASCII without case, and as one those that some language takes for one (i, j and y; u, v and w). Zero for what
 * is not plain: a sign of another script may equal any of them, one without weight nothing.
 */
const folded = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte < space || byte > 0x7e) return 0
  const letter = String.fromCharCode(byte).toLowerCase()
  const twin = { j: 'i', y: 'i', v: 'u', w: 'u' }[letter] ?? letter
  return twin.charCodeAt(0)
})

const hashFolded: HashCell = (hash, bytes, start, end) => {
  let last = end
  while (last > start && bytes[last - 1] === space) last--
  let mixed = hash
  for (let at = start; at < last; at++) {
    const letter = folded[bytes[at] ?? 0] ?? 0
    if (letter === 0) return anyValue
    mixed = Math.imul(mixed ^ letter, 0x01000193)
  }
  return mixed >>> 0
}

export function hashString(text: string): number {
  const bytes = Buffer.from(text)
  return mixBytes(0x811c9dc5, bytes, 0, bytes.length)
}

function mixBytes(hash: number, bytes: Uint8Array, start: number, end: number): number {
  let mixed = hash
  for (let at = start; at < end; at++) mixed = Math.imul(mixed ^ (bytes[at] ?? 0), 0x01000193)
  return mixed >>> 0
}

function mix(hash: number, word: number): number {
  let mixed = Math.imul(word, 0xcc9e2d51)
  mixed = Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593)
  mixed ^= hash
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) >>> 0
}

/** Spreads what was mixed over all bits. */
export function finish(hash: number): number {
  let mixed = hash ^ (hash >>> 16)
  mixed = Math.imul(mixed, 0x85ebca6b)
  mixed ^= mixed >>> 13
  mixed = Math.imul(mixed, 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
