import { Reader, type Writer } from '#base/bytes'
import { Fault, isFault } from '#base/faults'
import type { Storage } from '#storage'
import { envelopeOverheadBytes, type EnvelopeCipher } from './crypto.ts'
import { blobBytesMax, packBytesMax, packBytesMin, packHeaderBytesMax } from './limits.ts'
import type { BlobType, PackedBlob } from './repository.ts'

// A pack: `blob envelopes, envelope of the header, length of that envelope (32 bits, little end first)`.

export const packTrailerBytes = 4
const plainEntryBytes = 37
const compressedEntryBytes = 41

export function packKey(pack: string): string {
  return `data/${pack.slice(0, 2)}/${pack}`
}

/** What a blob takes in its pack's header. */
export function headerEntryBytes(plainLength: number): number {
  return plainLength === 0 ? plainEntryBytes : compressedEntryBytes
}

/** What a blob unpacks to; one that is not compressed is its envelope without the overhead. */
export function plainBytesOf({
  length,
  plainLength,
}: {
  length: number
  plainLength: number
}): number {
  return plainLength === 0 ? length - envelopeOverheadBytes : plainLength
}

/** The size that a pack of these blobs must have. */
export function packSizeBytes(blobs: Iterable<{ length: number; plainLength: number }>): number {
  let size = envelopeOverheadBytes + packTrailerBytes
  for (const { length, plainLength } of blobs) size += length + headerEntryBytes(plainLength)
  return size
}

const kinds: readonly { readonly type: BlobType; readonly compressed: boolean }[] = [
  { type: 'data', compressed: false },
  { type: 'tree', compressed: false },
  { type: 'data', compressed: true },
  { type: 'tree', compressed: true },
]

/** Appends one entry of a header; entries stand in the order of the blobs. */
export function writeHeaderEntry(
  writer: Writer,
  blob: { type: BlobType; id: Uint8Array; length: number; plainLength: number },
): void {
  const compressed = blob.plainLength !== 0
  writer.u8((blob.type === 'tree' ? 1 : 0) + (compressed ? 2 : 0)).u32le(blob.length)
  if (compressed) writer.u32le(blob.plainLength)
  writer.bytes(blob.id)
}

/** Reads a header that lies behind `blobBytes` bytes of envelopes, which its entries must cover exactly. */
export function decodePackHeader(
  header: Uint8Array,
  blobBytes: number,
  what: string,
): PackedBlob[] {
  const reader = new Reader(header, what)
  const blobs: PackedBlob[] = []
  let offset = 0
  try {
    while (reader.left > 0) {
      const kind = kinds[reader.u8()]
      if (!kind) throw new Fault('corrupt', `read ${what}: unknown kind of blob`)
      const length = reader.u32le()
      const plainLength = kind.compressed ? reader.u32le() : 0
      if (length < envelopeOverheadBytes || plainLength > blobBytesMax) {
        throw new Fault(
          'corrupt',
          `read ${what}: a blob of ${length} bytes, ${plainLength} unpacked`,
        )
      }
      blobs.push({
        type: kind.type,
        id: reader.view(32).toString('hex'),
        offset,
        length,
        plainLength,
      })
      offset += length
    }
  } catch (cause) {
    if (!isFault(cause, 'protocol')) throw cause
    throw new Fault('corrupt', `read ${what}: it ends within an entry`, { cause })
  }
  if (offset !== blobBytes || blobs.length === 0) {
    throw new Fault('corrupt', `read ${what}: its blobs take ${offset} of ${blobBytes} bytes`)
  }
  return blobs
}

/** Bytes at the end of a pack that are fetched at first: room for 15 entries. */
const tailBytes = 15 * compressedEntryBytes + envelopeOverheadBytes + packTrailerBytes

/** Reads the blob list at the end of a stored pack with one ranged read, or two when it is long. */
export async function readPackHeader(
  { storage, cipher }: { storage: Storage; cipher: EnvelopeCipher },
  pack: string,
  sizeBytes: number,
  { signal }: { signal: AbortSignal },
): Promise<PackedBlob[]> {
  const what = `pack ${pack}`
  if (sizeBytes < packBytesMin || sizeBytes > packBytesMax) {
    throw new Fault('corrupt', `read ${what}: ${sizeBytes} bytes are no pack`)
  }
  const start = Math.max(0, sizeBytes - tailBytes)
  let tail = await storage.get(packKey(pack), { start, end: sizeBytes, signal })
  const length = checkedHeaderBytes(tail, sizeBytes, what)
  if (length + packTrailerBytes > tail.length) {
    const from = sizeBytes - packTrailerBytes - length
    tail = await storage.get(packKey(pack), { start: from, end: sizeBytes, signal })
    if (checkedHeaderBytes(tail, sizeBytes, what) !== length) {
      throw new Fault('corrupt', `read ${what}: it changes while it is read`)
    }
  }
  return openHeader(cipher, tail, length, sizeBytes, what)
}

/** Reads the blob list of a pack that is in memory as a whole. */
export function decodePack(cipher: EnvelopeCipher, bytes: Buffer, what: string): PackedBlob[] {
  if (bytes.length < packBytesMin) throw new Fault('corrupt', `read ${what}: too short for a pack`)
  const length = checkedHeaderBytes(bytes, bytes.length, what)
  return openHeader(cipher, bytes, length, bytes.length, what)
}

function checkedHeaderBytes(tail: Buffer, sizeBytes: number, what: string): number {
  const length = tail.readUInt32LE(tail.length - packTrailerBytes)
  const most = Math.min(packHeaderBytesMax, sizeBytes - packTrailerBytes - envelopeOverheadBytes)
  if (length < envelopeOverheadBytes + plainEntryBytes || length > most) {
    throw new Fault('corrupt', `read ${what}: a header of ${length} bytes in ${sizeBytes}`)
  }
  return length
}

function openHeader(
  cipher: EnvelopeCipher,
  tail: Buffer,
  length: number,
  sizeBytes: number,
  what: string,
): PackedBlob[] {
  const end = tail.length - packTrailerBytes
  const header = cipher.open(tail.subarray(end - length, end), `header of ${what}`)
  return decodePackHeader(header, sizeBytes - packTrailerBytes - length, what)
}
