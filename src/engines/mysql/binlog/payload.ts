import { Readable } from 'node:stream'
import { createZstdDecompress } from 'node:zlib'
import { Reader } from '#base/bytes'
import { Fault, isFault } from '#base/faults'
import { decodeHeader, headerSize } from './event.ts'

const eventMaxBytes = 1100 * 1024 * 1024

/**
 * The events of a transaction that MySQL compressed. Fields of a type, a length and a value each: 1 holds the size, 2 the compression (0 zstd, 255 none), 0 ends them.
 * https://dev.mysql.com/doc/refman/9.0/en/binary-log-transaction-compression.html
 */
export async function* unpackPayload(body: Buffer): AsyncGenerator<Buffer, void, void> {
  const reader = new Reader(body, 'transaction payload')
  let compression = 255
  for (;;) {
    const field = readPacked(reader)
    if (field === 0) break
    const size = readPacked(reader)
    const value = new Reader(reader.view(size), 'transaction payload')
    if (field === 2) compression = readPacked(value)
  }
  const rest = reader.rest()
  if (compression !== 0 && compression !== 255) {
    throw new Fault('unsupported', `read transaction payload: compression ${compression}`)
  }
  const plain: AsyncIterable<Buffer> = compression === 0 ? decompress(rest) : Readable.from([rest])
  let held: Buffer = Buffer.alloc(0)
  for await (const chunk of plain) {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk])
    let at = 0
    while (held.length - at >= headerSize) {
      const { sizeBytes } = decodeHeader(held.subarray(at, at + headerSize))
      if (sizeBytes > eventMaxBytes) {
        throw new Fault('corrupt', `read transaction payload: an event of ${sizeBytes} bytes`)
      }
      if (held.length - at < sizeBytes) break
      yield held.subarray(at, at + sizeBytes)
      at += sizeBytes
    }
    held = held.subarray(at)
  }
  if (held.length > 0)
    throw new Fault('corrupt', 'read transaction payload: it ends inside an event')
}

async function* decompress(bytes: Buffer): AsyncGenerator<Buffer, void, void> {
  try {
    yield* Readable.from([bytes]).pipe(createZstdDecompress())
  } catch (error) {
    if (isFault(error)) throw error
    const said = 'read transaction payload: it cannot be decompressed'
    throw new Fault('protocol', said, { cause: error })
  }
}

function readPacked(reader: Reader): number {
  const first = reader.u8()
  if (first < 0xfb) return first
  if (first === 0xfc) return reader.u16le()
  if (first === 0xfd) return reader.u24le()
  return Number(reader.u64le())
}
