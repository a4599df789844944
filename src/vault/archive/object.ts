import { createHash, hkdfSync } from 'node:crypto'
import { release } from '#base/bytes'
import { Fault, isFault } from '#base/faults'
import type { Storage } from '#storage'
import type { Keyring, Signer } from '../signing.ts'
import {
  createFileKey,
  type FileKey,
  headerFor,
  openFile,
  openPayload,
  openStream,
  sealPayload,
  unlock,
} from './age/age.ts'
import { headerBytesMax, parseHeader } from './age/header.ts'
import type { Identity, Recipient } from './age/keys.ts'
import { formatKey } from './names.ts'
import { decodePiece, encodePiece, type Piece, splitPieces, unpackPiece } from './piece.ts'
import {
  type LogRecord,
  readRecord,
  readSignerClaim,
  type SignedRecord,
  signRecord,
} from './record.ts'

/** What is needed to write objects that the vault will believe. */
export type Sealing = {
  readonly vault: string
  readonly recipients: readonly Recipient[]
  readonly signer: Signer
}

/** What is needed to believe objects: no secret. */
export type Trust = { readonly vault: string; readonly keyring: Keyring }

/** What is needed to read them. */
export type Reading = Trust & { readonly identities: readonly Identity[] }

/** The fields of a record that its writer chooses; the rest follows from the bytes. */
export type RecordDraft = Omit<LogRecord, 'vault' | 'sha256' | 'keyProof'>

export type SealedObject = {
  readonly key: string
  readonly bytes: readonly Buffer[]
  readonly record: LogRecord
  readonly link: string
}

/** Bytes of an object that surely hold its header: a record and a few recipients. */
const headBytesGuess = 4096

/** Makes an object of one piece, and decodes it again before it is handed out. */
export function sealPart(
  draft: RecordDraft,
  piece: Piece,
  sealing: Sealing,
  level: number,
): SealedObject & { readonly plain: Buffer } {
  const plain = Buffer.concat(encodePiece(piece, level))
  const fileKey = createFileKey()
  const sha256 = createHash('sha256').update(plain).digest('hex')
  const { header, record, link } = sealHead(draft, sha256, fileKey, sealing)
  const payload = sealPayload(fileKey, [plain])
  const key = formatKey(record)
  const sealed = Buffer.concat(payload)
  const opened = Buffer.concat(openPayload(fileKey, sealed))
  const again = unpackPiece(opened, `log object ${key}`)
  // The index is not compared: it is hashed with the rest, and `opened` is what was hashed.
  if (!opened.equals(plain) || !again.bytes.equals(piece.bytes)) {
    throw new Fault('corrupt', `seal log object ${key}: it does not unpack to what went in`)
  }
  for (const bytes of [opened, again.bytes]) release(bytes)
  return { key, bytes: [header, sealed], record, link, plain }
}

/** The header of an object whose plain text has the given hash. */
export function sealHead(
  draft: RecordDraft,
  sha256: string,
  fileKey: FileKey,
  sealing: Sealing,
): { readonly header: Buffer; readonly record: LogRecord; readonly link: string } {
  const record = { ...draft, vault: sealing.vault, sha256, keyProof: proofOf(fileKey) }
  const { stanza, link } = signRecord(record, sealing.signer)
  return { header: headerFor(fileKey, sealing.recipients, [stanza]), record, link }
}

/** Reads and checks the record of an object, without any secret and without its payload. */
export async function readHead(
  storage: Storage,
  object: { readonly key: string; readonly sizeBytes: number },
  trust: Trust,
  signal: AbortSignal,
): Promise<SignedRecord> {
  const { stanzas } = await readHeader(storage, object, signal)
  return readRecord(stanzas, { key: object.key, ...trust })
}

/** The key that an object says it was signed by, unchecked; undefined where it says none, or cannot be read. */
export async function claimedSigner(
  storage: Storage,
  object: { readonly key: string; readonly sizeBytes: number },
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    return readSignerClaim((await readHeader(storage, object, signal)).stanzas)
  } catch (error) {
    if (isFault(error, 'corrupt', 'unsupported')) return undefined
    throw error
  }
}

async function readHeader(
  storage: Storage,
  object: { readonly key: string; readonly sizeBytes: number },
  signal: AbortSignal,
) {
  for (const limit of [headBytesGuess, headerBytesMax]) {
    const end = Math.min(limit, object.sizeBytes)
    const bytes = await storage.get(object.key, { start: 0, end, signal })
    const header = naming(object.key, () => parseHeader(bytes))
    if (header) return header
    if (end === object.sizeBytes) break
  }
  throw new Fault('corrupt', `read log object ${object.key}: it ends in its header`)
}

/** An object that was opened: its record is checked; its pieces are authenticated as they come. */
export type OpenedObject = {
  readonly signed: SignedRecord
  /** Packed pieces, in order; throws `corrupt` at the end when the whole is not what was signed. */
  readonly pieces: AsyncIterable<Buffer>
}

export async function openObject(
  storage: Storage,
  key: string,
  reading: Reading,
  signal: AbortSignal,
): Promise<OpenedObject> {
  let close: (() => Promise<void>) | undefined
  try {
    const opened = await openFile(storage.stream(key, { signal }))
    close = opened.close
    const { header, payload } = opened
    const signed = readRecord(header.stanzas, { key, ...reading })
    const fileKey = unlock(header, reading.identities)
    if (proofOf(fileKey) !== signed.record.keyProof) {
      throw new Fault('forged', `check log object ${key}: its record belongs to another file`)
    }
    const plain = hashed(openStream(fileKey, payload), key, signed.record.sha256)
    return { signed, pieces: named(splitPieces(plain, `log object ${key}`), key) }
  } catch (error) {
    await close?.()
    throw withName(error, key)
  }
}

/** Unpacked pieces of an opened object. */
export async function* unpack(
  object: OpenedObject,
  key: string,
): AsyncGenerator<Piece, void, void> {
  let sizeBytes = 0
  for await (const packed of object.pieces) {
    const piece = decodePiece(packed, `log object ${key}`)
    sizeBytes += piece.bytes.length
    yield piece
  }
  if (sizeBytes !== object.signed.record.sizeBytes) {
    throw new Fault('corrupt', `unpack log object ${key}: it holds ${sizeBytes} bytes`)
  }
}

async function* hashed(
  plain: AsyncIterable<Buffer>,
  key: string,
  sha256: string,
): AsyncGenerator<Buffer, void, void> {
  const hash = createHash('sha256')
  for await (const chunk of plain) {
    hash.update(chunk)
    yield chunk
  }
  if (hash.digest('hex') !== sha256) {
    throw new Fault('corrupt', `unpack log object ${key}: its SHA-256 is not the one signed`)
  }
}

async function* named(
  pieces: AsyncIterable<Buffer>,
  key: string,
): AsyncGenerator<Buffer, void, void> {
  try {
    yield* pieces
  } catch (error) {
    throw withName(error, key)
  }
}

function naming<T>(key: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw withName(error, key)
  }
}

/** The file format knows no names: a Fault of it gets that of the object. */
function withName(error: unknown, key: string): unknown {
  if (!(error instanceof Fault) || error.message.includes(key)) return error
  const { code, message, hint, recovery } = error
  return new Fault(code, `read log object ${key}: ${message}`, { hint, recovery, cause: error })
}

function proofOf(fileKey: FileKey): string {
  return Buffer.from(hkdfSync('sha256', fileKey, '', 'redoubt log record', 32)).toString('hex')
}
