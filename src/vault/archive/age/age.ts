import { randomBytes } from 'node:crypto'
import { Fault } from '#base/faults'
import { checkMac, corrupt, formatHeader, type Header, parseHeader, type Stanza } from './header.ts'
import type { Identity, Recipient } from './keys.ts'
import { Chunker, nonceSize, Opener, payloadKey, Sealer } from './stream.ts'
import {
  fileKeySize,
  unwrapWithIdentity,
  unwrapWithPassphrase,
  wrapForRecipient,
  wrapWithPassphrase,
} from './wrapping.ts'

/** A file key chosen for a new file. Kept at hand while the file is written, so that it can be decoded again. */
export type FileKey = Buffer

export function createFileKey(): FileKey {
  return randomBytes(fileKeySize)
}

/**
 * The header of a new file for its recipients. `extra` are stanzas that hold no key: stock age skips what it does not
 * know, and the header's MAC covers them.
 */
export function headerFor(
  fileKey: FileKey,
  recipients: readonly Recipient[],
  extra: readonly Stanza[] = [],
): Buffer {
  if (recipients.length === 0) throw new Fault('usage', 'encrypt to no recipient at all')
  const stanzas = recipients.map((recipient) => wrapForRecipient(fileKey, recipient))
  return formatHeader([...stanzas, ...extra], fileKey)
}

/** The payload of a file that fits in memory, as buffers to be written one behind the other. */
export function sealPayload(fileKey: FileKey, plain: readonly Buffer[]): Buffer[] {
  const nonce = randomBytes(nonceSize)
  const sealer = new Sealer(payloadKey(fileKey, nonce))
  const chunker = new Chunker('plain')
  const out: Buffer[] = [nonce]
  for (const piece of plain) {
    for (const chunk of chunker.push(piece)) out.push(...sealer.seal(chunk, false))
  }
  out.push(...sealer.seal(chunker.end(), true))
  return out
}

/** The same for a stream; `verify` opens each chunk again before it is handed on, and compares. */
export async function* sealStream(
  fileKey: FileKey,
  plain: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, void> {
  const nonce = randomBytes(nonceSize)
  const key = payloadKey(fileKey, nonce)
  const sealer = new Sealer(key)
  const opener = new Opener(key)
  const chunker = new Chunker('plain')
  const checked = (chunk: Buffer, last: boolean): Buffer => {
    const sealed = Buffer.concat(sealer.seal(chunk, last))
    if (!opener.open(sealed, last).equals(chunk)) {
      throw new Fault('corrupt', 'encrypt a chunk: it does not decrypt to what went in')
    }
    return sealed
  }
  yield nonce
  for await (const piece of plain) {
    for (const chunk of chunker.push(piece)) yield checked(chunk, false)
  }
  yield checked(chunker.end(), true)
}

/** Opens a payload that is in memory: the bytes behind a header. */
export function openPayload(fileKey: FileKey, payload: Buffer): Buffer[] {
  if (payload.length < nonceSize) throw corrupt('the nonce of the payload is missing')
  const opener = new Opener(payloadKey(fileKey, payload.subarray(0, nonceSize)))
  const chunker = new Chunker('sealed')
  const out: Buffer[] = []
  for (const chunk of chunker.push(payload.subarray(nonceSize))) out.push(opener.open(chunk, false))
  out.push(opener.open(chunker.end(), true))
  return out
}

/** A file whose header was read: what follows it comes through `payload`. */
export type OpenedFile = {
  readonly header: Header
  readonly payload: AsyncIterable<Buffer>
  /** For whoever does not read the payload: frees what the bytes come from. */
  readonly close: () => Promise<void>
}

/** Reads a file's header off a stream of its bytes. Leaving `payload` early ends the stream. */
export async function openFile(bytes: AsyncIterable<Buffer>): Promise<OpenedFile> {
  const pieces = bytes[Symbol.asyncIterator]()
  let head: Buffer = Buffer.alloc(0)
  for (;;) {
    const { value, done } = await pieces.next()
    if (done) throw corrupt('the file ends in its header')
    head = head.length === 0 ? value : Buffer.concat([head, value])
    const header = await guard(pieces, () => parseHeader(head))
    if (!header) continue
    const close = async () => void (await pieces.return?.())
    return { header, payload: rest(head.subarray(header.sizeBytes), pieces), close }
  }
}

async function guard<T>(pieces: AsyncIterator<Buffer>, work: () => T): Promise<T> {
  try {
    return work()
  } catch (error) {
    await pieces.return?.()
    throw error
  }
}

async function* rest(
  first: Buffer,
  pieces: AsyncIterator<Buffer>,
): AsyncGenerator<Buffer, void, void> {
  try {
    if (first.length > 0) yield first
    for (let next = await pieces.next(); !next.done; next = await pieces.next()) yield next.value
  } finally {
    await pieces.return?.()
  }
}

/** Opens a payload as it arrives: nothing is handed on that was not authenticated. */
export async function* openStream(
  fileKey: FileKey,
  payload: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, void> {
  const chunker = new Chunker('sealed')
  let nonce: Buffer = Buffer.alloc(0)
  let opener: Opener | undefined
  for await (const piece of payload) {
    let rest = piece
    if (!opener) {
      const want = nonceSize - nonce.length
      nonce = Buffer.concat([nonce, rest.subarray(0, want)])
      rest = rest.subarray(want)
      if (nonce.length < nonceSize) continue
      opener = new Opener(payloadKey(fileKey, nonce))
    }
    for (const chunk of chunker.push(rest)) yield opener.open(chunk, false)
  }
  if (!opener) throw corrupt('the nonce of the payload is missing')
  yield opener.open(chunker.end(), true)
}

/** The file key of a header, by the first identity that it was wrapped for. */
export function unlock(header: Header, identities: readonly Identity[]): FileKey {
  for (const stanza of header.stanzas) {
    for (const identity of identities) {
      const fileKey = unwrapWithIdentity(stanza, identity)
      if (!fileKey) continue
      checkMac(header, fileKey)
      return fileKey
    }
  }
  throw new Fault('wrong-key', 'decrypt an age file: no identity fits it')
}

/** Encrypts what fits in memory to X25519 recipients. */
export function encryptTo(recipients: readonly Recipient[], plain: Buffer): Buffer {
  const fileKey = createFileKey()
  return Buffer.concat([headerFor(fileKey, recipients), ...sealPayload(fileKey, [plain])])
}

/** Decrypts what `encryptTo`, or any age, wrote. */
export function decryptWith(identities: readonly Identity[], file: Buffer): Buffer {
  const header = wholeHeader(file)
  const fileKey = unlock(header, identities)
  return Buffer.concat(openPayload(fileKey, file.subarray(header.sizeBytes)))
}

/** Encrypts under a passphrase, as `age -p` does. */
export async function encryptWithPassphrase(
  passphrase: string,
  plain: Buffer,
  workFactor?: number,
): Promise<Buffer> {
  const fileKey = createFileKey()
  const stanza = await wrapWithPassphrase(fileKey, passphrase, workFactor)
  return Buffer.concat([formatHeader([stanza], fileKey), ...sealPayload(fileKey, [plain])])
}

/** Decrypts what was encrypted under a passphrase; `wrong-key` when it is another. */
export async function decryptWithPassphrase(passphrase: string, file: Buffer): Promise<Buffer> {
  const header = wholeHeader(file)
  const [stanza, ...more] = header.stanzas
  // The format forbids company: whoever wrote another stanza would know the passphrase's file key.
  if (!stanza || stanza.type !== 'scrypt' || more.length > 0) {
    throw corrupt('it is not encrypted under a passphrase alone')
  }
  const fileKey = await unwrapWithPassphrase(stanza, passphrase)
  if (!fileKey) throw new Fault('wrong-key', 'decrypt an age file: the passphrase does not fit it')
  checkMac(header, fileKey)
  return Buffer.concat(openPayload(fileKey, file.subarray(header.sizeBytes)))
}

/** The header of a file that is in memory as a whole. */
export function wholeHeader(file: Buffer): Header {
  const header = parseHeader(file)
  if (!header) throw corrupt('the file ends in its header')
  return header
}
