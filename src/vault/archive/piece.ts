import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { Reader, Writer } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Commit } from '#change'
import { Fields } from '../fields.ts'

/**
 * A run of native bytes with the index of what commits in it. The plain text of a log object is a sequence of pieces,
 * each a skippable frame with the index, which stock zstd passes over, and one zstd frame with the bytes.
 */
export type Piece = {
  readonly first: string
  readonly next: string
  readonly commits: readonly Commit[]
  readonly bytes: Buffer
}

/** Native bytes of one piece: what a reader holds at a time. */
export const pieceBytesMax = 8 * 1024 * 1024
/** The index of one piece, unpacked: beyond it a piece is cut at fewer commits. */
export const indexBytesMax = 16 * 1024 * 1024

// RFC 8878, section 3.1.2: sixteen magic numbers are free for frames that decoders skip.
const skippableMagic = 0x184d2a5d
const headSize = 8
/** Sizes of the native bytes and of the zstd frame, in front of the packed index. */
const sizesSize = 8
const indexChunkBytes = 64 * 1024
/** Memory for packed bytes is taken in steps: most often one is enough. */
const packedChunkBytesMin = 16 * 1024
const packedShare = 6
/** Room behind the native bytes: a buffer that is filled to the brim makes zstd ask for another one. */
const brimBytes = 64
/** What a frame may take beyond its content when nothing can be packed. */
const frameSlack = 64 * 1024

/** Packs a piece: the buffers to be written one behind the other. */
export function encodePiece(piece: Piece, level: number): [Buffer, Buffer] {
  const { first, next, commits, bytes } = piece
  const index = compress(encodeIndex(first, next, commits), 1)
  const frame = compress(bytes, level)
  const head = new Writer(headSize + sizesSize)
    .u32le(skippableMagic)
    .u32le(sizesSize + index.length)
    .u32le(bytes.length)
    .u32le(frame.length)
    .done()
  return [Buffer.concat([head, index]), frame]
}

/** The index as JSON text. */
export function encodeIndex(first: string, next: string, commits: readonly Commit[]): Buffer {
  const rows = commits.map(({ at, timeUs, id }) => [at, timeUs.toString(), id])
  return Buffer.from(JSON.stringify({ first, next, commits: rows }))
}

/** Bytes of the packed piece that begins here: how many to wait for; undefined while too few are there to tell. */
function pieceSize(bytes: Buffer, what: string): number | undefined {
  if (bytes.length < headSize + sizesSize) return undefined
  const reader = new Reader(bytes, what)
  if (reader.u32le() !== skippableMagic) throw damaged(what, 'no index stands where one should')
  const skipped = reader.u32le()
  const nativeBytes = reader.u32le()
  const frameSize = reader.u32le()
  if (nativeBytes > pieceBytesMax) throw damaged(what, `a piece of ${nativeBytes} bytes`)
  if (skipped < sizesSize || skipped > indexBytesMax || frameSize > nativeBytes + frameSlack) {
    throw damaged(what, 'the sizes of a piece are absurd')
  }
  return headSize + skipped + frameSize
}

/** Native bytes that a packed piece says it holds. */
export function nativeSize(packed: Buffer, what: string): number {
  return new Reader(packed, what, headSize).u32le()
}

/** Unpacks one whole piece; `what` names the object in messages. */
export function decodePiece(packed: Buffer, what: string): Piece {
  const { index, bytes } = unpackPiece(packed, what)
  const fields = Fields.parse(index, `the index of ${what}`)
  return {
    first: fields.text('first'),
    next: fields.text('next'),
    commits: fields.list('commits').map((row) => readCommit(row, what)),
    bytes,
  }
}

/** Unpacks without reading the index: enough to see that everything comes back. */
export function unpackPiece(
  packed: Buffer,
  what: string,
): { readonly index: Buffer; readonly bytes: Buffer } {
  if (pieceSize(packed, what) !== packed.length) throw damaged(what, 'a piece is cut short')
  const reader = new Reader(packed, what, 4)
  const indexSize = reader.u32le() - sizesSize
  const nativeBytes = reader.u32le()
  reader.skip(4)
  const index = decompress(reader.view(indexSize), indexBytesMax, indexChunkBytes, what)
  // One buffer of the right size in place of many small ones that are joined again.
  const bytes = decompress(reader.rest(), nativeBytes, nativeBytes + brimBytes, what)
  if (bytes.length !== nativeBytes) throw damaged(what, 'a piece unpacks to another size')
  return { index, bytes }
}

/** Cuts a stream into pieces, still packed. */
export async function* splitPieces(
  plain: AsyncIterable<Buffer>,
  what: string,
): AsyncGenerator<Buffer, void, void> {
  let held: Buffer[] = []
  let heldSize = 0
  let wanted: number | undefined
  for await (const chunk of plain) {
    held.push(chunk)
    heldSize += chunk.length
    while (heldSize >= (wanted ?? headSize + sizesSize)) {
      if (held.length > 1) held = [Buffer.concat(held)]
      const [joined = Buffer.alloc(0)] = held
      wanted ??= pieceSize(joined, what)
      if (wanted === undefined || joined.length < wanted) break
      yield joined.subarray(0, wanted)
      held = [joined.subarray(wanted)]
      heldSize -= wanted
      wanted = undefined
    }
  }
  if (heldSize > 0) throw damaged(what, 'a piece is cut short')
}

function compress(bytes: Buffer, level: number): Buffer {
  return zstdCompressSync(bytes, {
    chunkSize: Math.max(packedChunkBytesMin, Math.ceil(bytes.length / packedShare)),
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  })
}

function decompress(frame: Buffer, sizeMax: number, chunkSize: number, what: string): Buffer {
  try {
    return zstdDecompressSync(frame, { maxOutputLength: Math.max(1, sizeMax), chunkSize })
  } catch (error) {
    throw new Fault('corrupt', `unpack ${what}: zstd refuses a frame`, { cause: error })
  }
}

function readCommit(row: unknown, what: string): Commit {
  const [at, timeUs, id] = Array.isArray(row) ? (row as unknown[]) : []
  if (typeof at !== 'string' || typeof timeUs !== 'string' || typeof id !== 'string') {
    throw damaged(what, 'a commit in an index is not as it should be')
  }
  if (!/^-?\d{1,20}$/.test(timeUs)) throw damaged(what, 'the time of a commit is no number')
  return { at, timeUs: BigInt(timeUs), id }
}

function damaged(what: string, why: string): Fault {
  return new Fault('corrupt', `unpack ${what}: ${why}`)
}
