import { createHash, type Hash } from 'node:crypto'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { assert, Fault, fromSystem, isFault } from '#base/faults'
import type { Storage } from '#storage'
import { createFileKey, openPayload, sealPayload, sealStream } from './age/age.ts'
import { formatKey } from './names.ts'
import {
  openObject,
  type Reading,
  type RecordDraft,
  readHead,
  sealHead,
  type Sealing,
  type Trust,
} from './object.ts'
import {
  decodePiece,
  encodePiece,
  nativeSize,
  type Piece,
  pieceBytesMax,
  splitPieces,
} from './piece.ts'
import type { LogRecord } from './record.ts'
import type { Spool } from './spool.ts'
import type { Linked } from './tail.ts'

export type FoldOptions = {
  readonly storage: Storage
  readonly sealing: Sealing
  readonly trust: Trust
  /** With an identity at hand, parts that the spool has lost are read from the store again. */
  readonly reading?: Reading | undefined
  readonly spool: Spool
  readonly retainUntilMs: number | undefined
  readonly epoch: number
  readonly signal: AbortSignal
}

/** Parts smaller than that on average were packed badly, one by one: they are packed again, together. */
const repackBelowBytes = 128 * 1024
const repackPieceBytes = 1024 * 1024
const repackCommitsMax = 20_000
const repackLevel = 3
/** Up to here a fold stays in memory; a larger one is put together in a file. */
const memoryBytesMax = 32 * 1024 * 1024
const readBytes = 1024 * 1024

/**
 * Joins the parts of a segment into one object: unpacks each again, compares it with what was signed, and uploads the
 * joined one. Returns undefined, and changes nothing, when bytes of a part are neither in the spool nor readable.
 */
export async function fold(
  parts: readonly Linked[],
  kind: 'run' | 'full',
  options: FoldOptions,
): Promise<{ readonly folded: Linked; readonly plain: Buffer | undefined } | undefined> {
  await using assembly = new Assembly(options.spool.scratchFile)
  if (!(await assemble(parts, assembly, options))) return undefined
  const fileKey = createFileKey()
  const { epoch, storage } = options
  const writerEpoch = storage.can.conditionalPut ? undefined : epoch
  const draft = { ...draftFold(parts, kind), epoch, writerEpoch }
  const sha256 = assembly.digest()
  const { header, record, link } = sealHead(draft, sha256, fileKey, options.sealing)
  const key = formatKey(record)
  const put = { retainUntilMs: options.retainUntilMs, signal: options.signal }
  const plain = assembly.inMemory
  try {
    if (plain) {
      const payload = sealPayload(fileKey, [plain])
      if (!Buffer.concat(openPayload(fileKey, Buffer.concat(payload))).equals(plain)) {
        throw new Fault('corrupt', `seal log object ${key}: it does not decrypt to what went in`)
      }
      await options.storage.put(key, [header, ...payload], put)
    } else {
      await options.storage.putStream(
        key,
        headed(header, sealStream(fileKey, assembly.read())),
        put,
      )
    }
  } catch (error) {
    // The store holds back what is there already and locked: a fold of before, whose answer was lost.
    if (!isFault(error, 'exists', 'denied') || !(await isThere(key, record, options))) throw error
  }
  const info = await options.storage.stat(key, { signal: options.signal })
  if (!info) throw new Fault('corrupt', `put log object ${key}: the store does not show it`)
  const kept = { ...record, key, sizeBytes: info.sizeBytes, modifiedMs: info.modifiedMs }
  return { folded: { record, link, signer: options.sealing.signer.id, key, kept }, plain }
}

function draftFold(
  parts: readonly Linked[],
  kind: 'run' | 'full',
): Omit<RecordDraft, 'epoch' | 'writerEpoch'> {
  const [first] = parts
  const last = parts.at(-1)
  assert(first && last, 'a fold has parts')
  const records = parts.map(({ record }) => record)
  const sum = (field: 'sizeBytes' | 'commits') => records.reduce((all, r) => all + r[field], 0)
  const { source, history, segment, offset, sequenceFirst, previous, after, hole } = first.record
  const { next, closes, sequenceLast, latestUs, completeUs } = last.record
  return {
    kind,
    source,
    history,
    segment,
    offset,
    next,
    closes,
    sequenceFirst,
    sequenceLast,
    previous,
    after,
    hole,
    latestUs,
    completeUs,
    first: first.record.first,
    link: last.link,
    sizeBytes: sum('sizeBytes'),
    commits: sum('commits'),
    firstCommitUs: records.find((r) => r.firstCommitUs !== undefined)?.firstCommitUs,
    lastCommitUs: records.findLast((r) => r.lastCommitUs !== undefined)?.lastCommitUs,
  }
}

async function assemble(
  parts: readonly Linked[],
  assembly: Assembly,
  options: FoldOptions,
): Promise<boolean> {
  const bytes = parts.reduce((sum, { record }) => sum + record.sizeBytes, 0)
  const repack = parts.length > 1 && bytes / parts.length < repackBelowBytes
  const packer = repack ? new Repacker(assembly) : undefined
  for (const part of parts) {
    const pieces = await packedPieces(part, options)
    if (!pieces) return false
    let sizeBytes = 0
    for await (const packed of pieces) {
      const what = `log object ${part.key}`
      // Joined as they are, pieces are the very bytes that were unpacked before they were signed: their hash says so.
      sizeBytes += nativeSize(packed, what)
      if (packer) await packer.add(decodePiece(packed, what))
      else await assembly.add(packed)
    }
    if (sizeBytes !== part.record.sizeBytes) {
      throw new Fault('corrupt', `fold log object ${part.key}: it unpacks to ${sizeBytes} bytes`)
    }
  }
  await packer?.flush()
  return true
}

async function packedPieces(
  part: Linked,
  options: FoldOptions,
): Promise<AsyncIterable<Buffer> | undefined> {
  const plain = await options.spool.read(part.link)
  const sha256 = plain && createHash('sha256').update(plain).digest('hex')
  if (plain && sha256 === part.record.sha256) {
    return splitPieces(ofOne(plain), `the spool of ${part.key}`)
  }
  if (!options.reading) return undefined
  const { storage, reading, signal } = options
  return (await openObject(storage, part.key, reading, signal)).pieces
}

async function isThere(key: string, record: LogRecord, options: FoldOptions): Promise<boolean> {
  const info = await options.storage.stat(key, { signal: options.signal })
  if (!info) return false
  const { record: present } = await readHead(options.storage, info, options.trust, options.signal)
  return present.link === record.link && present.sizeBytes === record.sizeBytes
}

/** Packs small pieces again, together. */
class Repacker {
  readonly #assembly: Assembly
  #held: Piece[] = []
  #bytes = 0
  #commits = 0

  constructor(assembly: Assembly) {
    this.#assembly = assembly
  }

  async add(piece: Piece): Promise<void> {
    const full = this.#bytes + piece.bytes.length > Math.min(repackPieceBytes, pieceBytesMax)
    if (full || this.#commits >= repackCommitsMax) await this.flush()
    this.#held.push(piece)
    this.#bytes += piece.bytes.length
    this.#commits += piece.commits.length
  }

  async flush(): Promise<void> {
    const [first] = this.#held
    const last = this.#held.at(-1)
    if (!first || !last) return
    const joined = {
      first: first.first,
      next: last.next,
      commits: this.#held.flatMap(({ commits }) => commits),
      bytes: Buffer.concat(this.#held.map(({ bytes }) => bytes)),
    }
    this.#held = []
    this.#bytes = 0
    this.#commits = 0
    const packed = Buffer.concat(encodePiece(joined, repackLevel))
    if (!decodePiece(packed, 'a repacked piece').bytes.equals(joined.bytes)) {
      throw new Fault('corrupt', 'pack a piece again: it does not unpack to what went in')
    }
    await this.#assembly.add(packed)
  }
}

/** Collects the plain text of a fold: in memory while it is small, else in a file. */
class Assembly implements AsyncDisposable {
  readonly #file: string
  readonly #hash: Hash = createHash('sha256')
  #held: Buffer[] = []
  #size = 0
  #handle: FileHandle | undefined

  constructor(file: string) {
    this.#file = file
  }

  get inMemory(): Buffer | undefined {
    return this.#handle ? undefined : Buffer.concat(this.#held)
  }

  async add(packed: Buffer): Promise<void> {
    this.#hash.update(packed)
    this.#held.push(packed)
    this.#size += packed.length
    if (!this.#handle && this.#size <= memoryBytesMax) return
    try {
      this.#handle ??= await open(this.#file, 'w+', 0o600)
      await this.#handle.writeFile(Buffer.concat(this.#held))
    } catch (error) {
      throw fromSystem(error, `write ${this.#file}`)
    }
    this.#held = []
  }

  digest(): string {
    return this.#hash.copy().digest('hex')
  }

  async *read(): AsyncGenerator<Buffer, void, void> {
    assert(this.#handle, 'a large fold is in a file')
    const hash = createHash('sha256')
    for (let at = 0; at < this.#size; ) {
      const bytes = Buffer.allocUnsafe(Math.min(readBytes, this.#size - at))
      const { bytesRead } = await this.#handle.read(bytes, 0, bytes.length, at)
      if (bytesRead === 0) throw new Fault('io', `read ${this.#file}: it is shorter than written`)
      at += bytesRead
      hash.update(bytes.subarray(0, bytesRead))
      if (at === this.#size && hash.digest('hex') !== this.digest()) {
        throw new Fault('corrupt', `read ${this.#file}: it is not what was written`)
      }
      yield bytes.subarray(0, bytesRead)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#handle) return
    await this.#handle.close()
    await rm(this.#file, { force: true })
  }
}

async function* ofOne(bytes: Buffer): AsyncGenerator<Buffer, void, void> {
  yield bytes
}

async function* headed(
  head: Buffer,
  rest: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, void> {
  yield head
  yield* rest
}
