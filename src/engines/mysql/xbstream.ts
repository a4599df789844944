import { crc32 } from 'node:zlib'
import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'

/** A run of one file's bytes, or its end. */
export type StreamChunk =
  | { readonly kind: 'bytes'; readonly path: string; readonly bytes: Buffer }
  | { readonly kind: 'end'; readonly path: string }

const magic = 'XBSTCK01'
const pathMaxBytes = 4096
const payloadMaxBytes = 256 * 1024 * 1024
/** Magic, flags, type and the length of the path. */
const headSize = 14

/**
 * Reads the stream that mariadb-backup and xtrabackup write: chunks of many files in turn, each with its path, its
 * place in the file and a CRC32. https://docs.percona.com/percona-xtrabackup/8.0/xbstream-binary-overview.html
 */
export async function* readXbstream(
  source: AsyncIterable<Buffer>,
): AsyncGenerator<StreamChunk, void, void> {
  const places = new Map<string, bigint>()
  let held: Buffer = Buffer.alloc(0)
  const parts: Buffer[] = []
  let partsBytes = 0
  let needed = headSize
  for await (const chunk of source) {
    parts.push(chunk)
    partsBytes += chunk.length
    // Joined only when the whole of the next chunk is there: a large payload is copied once.
    if (held.length + partsBytes < needed) continue
    held = Buffer.concat([held, ...parts.splice(0)])
    partsBytes = 0
    let at = 0
    for (;;) {
      const rest = held.subarray(at)
      const parsed = parseChunk(rest)
      if (typeof parsed === 'number') {
        needed = parsed
        break
      }
      yield checkPlace(parsed, places)
      at += parsed.size
    }
    held = held.subarray(at)
  }
  if (held.length + partsBytes > 0) {
    throw new Fault('protocol', 'read backup stream: it ends inside a chunk')
  }
}

type Parsed = { readonly chunk: StreamChunk; readonly offset: bigint; readonly size: number }

/** The chunk at the start, or how many bytes must be there before that can be told. */
function parseChunk(bytes: Buffer): Parsed | number {
  if (bytes.length < headSize) return headSize
  const reader = new Reader(bytes, 'backup stream')
  if (reader.text(8) !== magic)
    throw new Fault('protocol', 'read backup stream: no chunk begins here')
  const flags = reader.u8()
  const type = String.fromCharCode(reader.u8())
  const pathSize = reader.u32le()
  if (pathSize > pathMaxBytes)
    throw new Fault('protocol', `read backup stream: a path of ${pathSize} bytes`)
  if (reader.left < pathSize) return headSize + pathSize
  const path = reader.text(pathSize)
  if (type === 'E') return { chunk: { kind: 'end', path }, offset: -1n, size: reader.pos }
  if (type !== 'P') {
    throw new Fault(
      'unsupported',
      `read backup stream: chunk type ${type} (flags ${flags}) of ${path}`,
    )
  }
  if (reader.left < 20) return headSize + pathSize + 20
  const size = Number(reader.u64le())
  const offset = reader.u64le()
  const sum = reader.u32le()
  if (size > payloadMaxBytes)
    throw new Fault('protocol', `read backup stream: a chunk of ${size} bytes`)
  if (reader.left < size) return reader.pos + size
  const payload = reader.view(size)
  if (crc32(payload) !== sum) {
    throw new Fault('protocol', `read backup stream: wrong checksum in ${path} at ${offset}`)
  }
  return { chunk: { kind: 'bytes', path, bytes: payload }, offset, size: reader.pos }
}

function checkPlace({ chunk, offset }: Parsed, places: Map<string, bigint>): StreamChunk {
  const place = places.get(chunk.path) ?? 0n
  if (chunk.kind === 'end') {
    places.delete(chunk.path)
    return chunk
  }
  if (offset !== place) {
    throw new Fault(
      'protocol',
      `read backup stream: ${chunk.path} goes on at ${offset}, not at ${place}`,
    )
  }
  places.set(chunk.path, place + BigInt(chunk.bytes.length))
  return chunk
}
