import { Fault } from '#base/faults'
import type { Storage } from '#storage'
import { isId, sha256Hex } from './blob-id.ts'
import { compress, decompressLimited } from './compression.ts'
import type { EnvelopeCipher } from './crypto.ts'
import { parseJson } from './json.ts'
import { fileBytesMax, jsonBytesMax } from './limits.ts'
import type { JsonFolder, StoredFile } from './repository.ts'

// Files that are read and written whole: keys, and the JSON of index/, snapshots/ and locks/. Each is named
// by the SHA-256 of its stored bytes.

export type ReadOptions = { readonly signal: AbortSignal }

/** What lies in a folder, ascending by id. Foreign names (drafts of a file system, say) are passed over. */
export async function listFiles(
  storage: Storage,
  folder: JsonFolder | 'keys',
  { signal }: ReadOptions,
): Promise<StoredFile[]> {
  const files: StoredFile[] = []
  for await (const { key, sizeBytes, modifiedMs } of storage.list(`${folder}/`, { signal })) {
    const id = key.slice(folder.length + 1)
    if (isId(id)) files.push({ id, sizeBytes, modifiedMs })
  }
  return files
}

/** Reads a file and compares it with its name: once again when they differ, since it may have been the transfer. */
export async function readFile(
  storage: Storage,
  folder: JsonFolder | 'keys',
  file: { readonly id: string; readonly sizeBytes?: number | undefined },
  { signal }: ReadOptions,
): Promise<Buffer> {
  const key = `${folder}/${file.id}`
  const sizeBytes = file.sizeBytes ?? (await storage.stat(key, { signal }))?.sizeBytes
  if (sizeBytes === undefined) throw new Fault('missing', `read ${key}: it is not there`)
  if (sizeBytes > fileBytesMax) {
    throw new Fault('corrupt', `read ${key}: ${sizeBytes} bytes exceed ${fileBytesMax}`)
  }
  for (let tries = 1; ; tries++) {
    const bytes = await storage.get(key, { signal })
    if (sha256Hex(bytes) === file.id) return bytes
    if (tries === 2) throw new Fault('corrupt', `read ${key}: the bytes do not match the name`)
  }
}

const compressedMark = 2
const mayBeginJson: readonly number[] = [0x5b, 0x7b]

/** The JSON text of an unpacked file: plain in version 1, behind a mark byte and zstd in version 2. */
function unpackJson(plain: Buffer, what: string): Buffer {
  const first = plain[0]
  if (first === compressedMark) return decompressLimited(plain.subarray(1), jsonBytesMax, what)
  if (first !== undefined && mayBeginJson.includes(first)) return plain
  throw new Fault('corrupt', `read ${what}: unknown encoding ${first ?? 'of nothing'}`)
}

/** The value of an unpacked file. */
export function decodeJson(plain: Buffer, what: string): unknown {
  return parseJson(unpackJson(plain, what).toString(), what)
}

type From = { readonly storage: Storage; readonly cipher: EnvelopeCipher }
type Wanted = { readonly id: string; readonly sizeBytes?: number | undefined }

/** Reads, opens and unpacks a file: the bytes of JSON that it holds. */
export async function loadJsonBytes(
  { storage, cipher }: From,
  folder: JsonFolder,
  file: Wanted,
  options: ReadOptions,
): Promise<Buffer> {
  const what = `${folder}/${file.id}`
  return unpackJson(cipher.open(await readFile(storage, folder, file, options), what), what)
}

export async function loadJson(
  from: From,
  folder: JsonFolder,
  file: Wanted,
  options: ReadOptions,
): Promise<unknown> {
  const bytes = await loadJsonBytes(from, folder, file, options)
  return parseJson(bytes.toString(), `${folder}/${file.id}`)
}

/** Stores JSON text in the form of the repository's version, decoded and compared before it leaves. */
export async function saveJson(
  to: { storage: Storage; cipher: EnvelopeCipher; version: 1 | 2 },
  folder: JsonFolder,
  text: string,
  { signal }: ReadOptions,
): Promise<string> {
  const json = Buffer.from(text)
  const plain =
    to.version === 1 ? json : Buffer.concat([Buffer.of(compressedMark), compress(json, 'auto')])
  const stored = to.cipher.seal(plain)
  const what = `new file of ${folder}`
  const again = to.cipher.open(stored, what)
  const decoded =
    to.version === 1 ? again : decompressLimited(again.subarray(1), json.length, what, json.length)
  if (!decoded.equals(json)) {
    throw new Fault('corrupt', `write ${what}: it does not decode to what was given`)
  }
  const id = sha256Hex(stored)
  await to.storage.put(`${folder}/${id}`, stored, { signal })
  return id
}
