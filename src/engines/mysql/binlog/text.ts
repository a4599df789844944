import { crc32 } from 'node:zlib'
import { checksumSize } from './event.ts'

/** Maps and the first bytes of an event, the rest of which follows in pieces. */
type Parts = {
  readonly maps: readonly Buffer[]
  readonly head: Buffer
  readonly event: { readonly sizeBytes: number }
  readonly checksums: boolean
}

/** A BINLOG statement as pieces of text, and how long it will be. `rest` is the event behind its head, without checksum. */
export function binlogText(
  parts: Parts,
  rest: AsyncIterable<Buffer>,
): { readonly sizeBytes: number; readonly text: AsyncIterable<Buffer> } {
  const { maps, event } = parts
  const plainBytes = maps.reduce((sum, map) => sum + map.length, 0) + event.sizeBytes
  const sizeBytes = opening.length + Math.ceil(plainBytes / 3) * 4 + closing.length
  return { sizeBytes, text: write(parts, rest) }
}

const opening = Buffer.from(`BINLOG '`)
const closing = Buffer.from(`'`)

async function* write(
  parts: Parts,
  rest: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, void> {
  const { maps, head, checksums } = parts
  yield opening
  let held = Buffer.concat(maps)
  let sum = 0
  /** Base64 stands in groups of three bytes: what is left over waits for the next piece. */
  const take = (bytes: Buffer): Buffer => {
    const all = Buffer.concat([held, bytes])
    const whole = all.length - (all.length % 3)
    held = Buffer.from(all.subarray(whole))
    return Buffer.from(all.subarray(0, whole).toString('base64'), 'latin1')
  }
  sum = crc32(head, sum)
  yield take(head)
  for await (const piece of rest) {
    sum = crc32(piece, sum)
    yield take(piece)
  }
  if (checksums) {
    const tail = Buffer.alloc(checksumSize)
    tail.writeUInt32LE(sum)
    yield take(tail)
  }
  yield Buffer.concat([Buffer.from(held.toString('base64'), 'latin1'), closing])
}
