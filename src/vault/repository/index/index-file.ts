import { takeId } from '../blob-id.ts'
import { takeInteger, takeList, takeObject } from '../json.ts'
import { blobBytesMax, packBytesMax } from '../limits.ts'
import { Fault } from '#base/faults'
import type { IndexedPack, PackedBlob } from '../repository.ts'

/** Reads the JSON of an index file; the field `supersedes` of old ones says nothing any more. */
export function decodeIndex(json: unknown, what: string): IndexedPack[] {
  return takeList(takeObject(json, what)['packs'], what).map((entry) => {
    const pack = takeObject(entry, what)
    const id = takeId(pack['id'], `${what}, pack`)
    const blobs = takeList(pack['blobs'], what).map((blob) =>
      decodeBlob(blob, `${what}, pack ${id}`),
    )
    return { id, blobs }
  })
}

function decodeBlob(value: unknown, what: string): PackedBlob {
  const blob = takeObject(value, what)
  const type = blob['type']
  if (type !== 'data' && type !== 'tree') {
    throw new Fault('corrupt', `read ${what}: unknown type of blob ${String(type).slice(0, 20)}`)
  }
  return {
    id: takeId(blob['id'], `${what}, blob`),
    type,
    offset: takeInteger(blob['offset'], packBytesMax, `${what}, offset`),
    length: takeInteger(blob['length'], packBytesMax, `${what}, length`),
    plainLength: takeInteger(blob['uncompressed_length'] ?? 0, blobBytesMax, `${what}, length`),
  }
}

/** The JSON text of an index file. Every pack must be listed whole. */
export function encodeIndex(packs: readonly IndexedPack[]): string {
  const parts: string[] = []
  for (const { id, blobs } of packs) {
    const entries = blobs.map((blob) => {
      const unpacked = blob.plainLength === 0 ? '' : `,"uncompressed_length":${blob.plainLength}`
      return `{"id":"${blob.id}","type":"${blob.type}","offset":${blob.offset},"length":${blob.length}${unpacked}}`
    })
    parts.push(`{"id":"${id}","blobs":[${entries.join(',')}]}`)
  }
  return `{"packs":[${parts.join(',')}]}`
}
