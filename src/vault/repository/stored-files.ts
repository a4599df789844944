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

/** The JSON of an unpacked file: plain in version 1, behind a mark byte and zstd in version 2. */
export function decodeJson(plain: Buffer, what: string): unknown {
  const first = plain[0]
  if (first === compressedMark) {
    return parseJson(decompressLimited(plain.subarray(1), jsonBytesMax, what).toString(), what)
  }
  if (first !== undefined && mayBeginJson.includes(first)) return parseJson(plain.toString(), what)
  throw new Fault('corrupt', `read ${what}: unknown encoding ${first ?? 'of nothing'}`)
}

export async function loadJson(
  { storage, cipher }: { storage: Storage; cipher: EnvelopeCipher },
  folder: JsonFolder,
  file: { readonly id: string; readonly sizeBytes?: number | undefined },
  options: ReadOptions,
): Promise<unknown> {
  const what = `${folder}/${file.id}`
  return decodeJson(cipher.open(await readFile(storage, folder, file, options), what), what)
}

/** Stores JSON text in the form of version 2, decoded and compared before it leaves; returns its id. */
export async function saveJson(
  { storage, cipher }: { storage: Storage; cipher: EnvelopeCipher },
  folder: JsonFolder,
  text: string,
  { signal }: ReadOptions,
): Promise<string> {
  const plain = Buffer.from(text)
  const stored = cipher.seal(Buffer.concat([Buffer.of(compressedMark), compress(plain, 'auto')]))
  const again = cipher.open(stored, `new file of ${folder}`)
  if (!decompressLimited(again.subarray(1), jsonBytesMax, `new file of ${folder}`).equals(plain)) {
    throw new Fault(
      'corrupt',
      `write ${folder}: the encoded file does not decode to what was given`,
    )
  }
  const id = sha256Hex(stored)
  await storage.put(`${folder}/${id}`, stored, { signal })
  return id
}
