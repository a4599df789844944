import { crc32 } from 'node:zlib'
import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'

/** A run of one file's bytes, or its end where there are none. A run lasts until the next one is asked for. */
export type StreamChunk = { readonly path: string; readonly bytes: Buffer | undefined }

const magic = 'XBSTCK01'
const pathMaxBytes = 4096
const payloadMaxBytes = 256 * 1024 * 1024
/** Magic, flags, type and the length of the path. */
const headSize = 14
/** Size, place and sum of a payload. */
const placeSize = 20

/** What is left of a chunk's payload. */
type Payload = {
  readonly path: string
  readonly offset: bigint
  readonly sum: number
  left: number
  sumSoFar: number
}

/**
 * Reads the stream that mariadb-backup and xtrabackup write: chunks of many files in turn, each with its path, its
 * place in the file and a CRC32. Bytes pass on before the sum behind them is known: a file is sound when its end came.
 * https://docs.percona.com/percona-xtrabackup/8.0/xbstream-binary-overview.html
 */
export async function* readXbstream(
  source: AsyncIterable<Buffer>,
): AsyncGenerator<StreamChunk, void, void> {
  const places = new Map<string, bigint>()
  let head: Buffer = Buffer.alloc(0)
  let open: Payload | undefined
  for await (const chunk of source) {
    let rest = chunk
    while (rest.length > 0) {
      if (open) {
        const bytes = rest.subarray(0, open.left)
        rest = rest.subarray(bytes.length)
        takeIn(open, bytes)
        yield { path: open.path, bytes }
        if (open.left === 0) open = undefined
        continue
      }
      const joined = head.length === 0 ? rest : Buffer.concat([head, rest])
      const parsed = parseHead(joined)
      head = parsed ? Buffer.alloc(0) : Buffer.from(joined)
      if (!parsed) break
      rest = joined.subarray(parsed.size)
      open = begin(parsed, places)
      if (parsed.kind === 'end') yield { path: parsed.path, bytes: undefined }
    }
  }
  if (open || head.length > 0) {
    throw new Fault('protocol', 'read backup stream: it ends inside a chunk')
  }
}

type Head = { readonly path: string; readonly size: number } & (
  | { readonly kind: 'end' }
  | {
      readonly kind: 'payload'
      readonly bytes: number
      readonly offset: bigint
      readonly sum: number
    }
)

/** What stands before a payload, or in its place; undefined when not all of it is there. */
function parseHead(bytes: Buffer): Head | undefined {
  if (bytes.length < headSize) return undefined
  const reader = new Reader(bytes, 'backup stream')
  if (reader.text(8) !== magic)
    throw new Fault('protocol', 'read backup stream: no chunk begins here')
  const flags = reader.u8()
  const type = String.fromCharCode(reader.u8())
  const pathSize = reader.u32le()
  if (pathSize > pathMaxBytes)
    throw new Fault('protocol', `read backup stream: a path of ${pathSize} bytes`)
  if (reader.left < pathSize) return undefined
  const path = reader.text(pathSize)
  if (type === 'E') return { kind: 'end', path, size: reader.pos }
  if (type !== 'P') {
    throw new Fault(
      'unsupported',
      `read backup stream: chunk type ${type} (flags ${flags}) of ${path}`,
    )
  }
  if (reader.left < placeSize) return undefined
  const size = Number(reader.u64le())
  const offset = reader.u64le()
  const sum = reader.u32le()
  if (size > payloadMaxBytes)
    throw new Fault('protocol', `read backup stream: a chunk of ${size} bytes`)
  return { kind: 'payload', path, bytes: size, offset, sum, size: reader.pos }
}

/** Checks that a payload goes on where the file's last one ended. */
function begin(head: Head, places: Map<string, bigint>): Payload | undefined {
  const { path } = head
  if (head.kind === 'end') {
    places.delete(path)
    return undefined
  }
  const { offset, sum, bytes } = head
  const place = places.get(path) ?? 0n
  if (offset !== place) {
    throw new Fault('protocol', `read backup stream: ${path} goes on at ${offset}, not at ${place}`)
  }
  places.set(path, place + BigInt(bytes))
  const payload = { path, offset, sum, left: bytes, sumSoFar: 0 }
  if (bytes > 0) return payload
  takeIn(payload, Buffer.alloc(0))
  return undefined
}

function takeIn(payload: Payload, bytes: Buffer): void {
  payload.left -= bytes.length
  payload.sumSoFar = crc32(bytes, payload.sumSoFar)
  if (payload.left > 0 || payload.sumSoFar === payload.sum) return
  const { path, offset } = payload
  throw new Fault('protocol', `read backup stream: wrong checksum in ${path} at ${offset}`)
}
