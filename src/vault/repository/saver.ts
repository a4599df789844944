import { Writer } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import { systemTime } from '#base/time'
import type { Content } from '#change/tree'
import type { Storage } from '#storage'
import { sha256, sha256Hex } from './blob-id.ts'
import type { MakerSetup } from './blob-maker.ts'
import type { CompressionMode } from './compression.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'
import type { BlobIndex } from './index/blob-index.ts'
import { idWords } from './index/blob-table.ts'
import { IndexWriter } from './index/index-writer.ts'
import { checkPack, closePack, mergeSmall, type OpenPack } from './packer.ts'
import type { BlobSaver, BlobType, BlobWriter, SavedContent, SaverStats } from './repository.ts'
import { BlockFile, BlockPool, blocksPerWorker, type BlockOptions } from './saver-blocks.ts'
import { blobBytesMax, filesMax, Lane } from './saver-lane.ts'
import { blobWeightBytes, type FileJob, type FromWorker, type JobResult } from './saver-protocol.ts'
import { PackUploads } from './uploads.ts'

/** Streams that one worker cuts at the same time; more wait until one ends. */
const streamsMax = 4
/** Pieces in which a stream goes to its worker, and how many of them may be on the way. */
const pieceBytes = 512 * 1024
const piecesMax = 6
/** Blobs that are joined into one message. */
const batchBytes = 256 * 1024

export type SaverOptions = {
  readonly storage: Storage
  readonly index: BlobIndex
  readonly keys: EnvelopeKeys
  readonly polynomial: bigint
  readonly saveIndex: (text: string) => Promise<void>
  readonly mode: CompressionMode
  readonly workers: number
  readonly signal: AbortSignal
}

let saversOpened = 0

export function openSaver(options: SaverOptions): BlobSaver {
  return new WorkerSaver(options)
}

/** A call that waits for a worker's result. */
type Job = {
  readonly resolve: (content: SavedContent) => void
  readonly reject: (error: unknown) => void
  readonly progress: Progress | undefined
}

/** `plain` has its memory for itself, from its beginning on. */
type Blob = {
  readonly type: BlobType
  readonly id: string
  readonly plain: Uint8Array<ArrayBuffer>
}

/** Spreads files, streams and blobs over worker threads, and stores the packs that come back. */
class WorkerSaver implements BlobSaver {
  readonly #options: SaverOptions
  readonly #setup: MakerSetup
  readonly #cipher: EnvelopeCipher
  readonly #writer: IndexWriter
  readonly #uploads: PackUploads
  readonly #lanes: Lane[] = []
  readonly #jobs = new Map<number, Job>()
  #files: FileJob[] = []
  #jobsBegun = 0
  #isDispatching = false
  #failure: { readonly error: unknown } | undefined
  #isFinished = false
  /** Woken with everything that somebody may wait for. */
  #waiting: (() => void)[] = []
  readonly #batches = new Map<Lane, { blobs: Blob[]; sizeBytes: number }>()
  readonly #blocks: BlockPool
  readonly #pieces = new Map<number, ArrayBuffer[]>()
  readonly #flushed = new Map<Lane, Extract<FromWorker, { kind: 'flushed' }>>()
  readonly #onAbort = () => this.#fail(this.#options.signal.reason)

  constructor(options: SaverOptions) {
    this.#options = options
    const { storage, index, signal } = options
    this.#cipher = new EnvelopeCipher(options.keys)
    this.#writer = new IndexWriter(options.saveIndex, systemTime)
    this.#uploads = new PackUploads({ storage, index, writer: this.#writer, signal })
    this.#setup = {
      keys: options.keys,
      polynomial: options.polynomial.toString(16),
      mode: options.mode,
      table: index.table.shared,
      saver: ++saversOpened,
      chunkers: 1 + streamsMax,
    }
    this.#blocks = new BlockPool({
      count: options.workers * blocksPerWorker,
      lane: () => this.#quietLane((lane) => lane.blocks),
      check: () => this.#check(),
    })
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  writeBlocks(options: BlockOptions = {}): BlobWriter {
    this.#check()
    return new BlockFile(this.#blocks, options)
  }

  async saveContent(content: Content, progress?: Progress): Promise<SavedContent> {
    this.#check()
    const job = ++this.#jobsBegun
    if (content.kind === 'stream') return this.#saveStream(job, content.read(), progress)
    return new Promise((resolve, reject) => {
      this.#jobs.set(job, { resolve, reject, progress })
      const { path, holes } = content
      this.#files.push({ job, path: path.toString('latin1'), holes })
      this.#dispatchSoon()
    })
  }

  async saveBlob(
    type: BlobType,
    plain: Uint8Array,
    options: { readonly again?: boolean; readonly isGiven?: boolean } = {},
  ): Promise<string> {
    this.#check()
    const hash = sha256(plain)
    const id = hash.toString('hex')
    const { table } = this.#options.index
    const isNew = table.claim(idWords(hash), type === 'tree', this.#setup.saver)
    if (!isNew && !options.again) return id
    // Trees go to one worker, so that as few packs as possible stay small.
    const lane = type === 'tree' ? this.#lane(0) : this.#quietLane((other) => other.blobBytes)
    lane.blobBytes += plain.length + blobWeightBytes
    // What has its memory for itself is handed over as it is: there may not be room for two of a huge tree.
    const isWhole = plain.byteOffset === 0 && plain.length >= batchBytes && isUnshared(plain)
    this.#batch(lane, {
      type,
      id,
      plain: options.isGiven && isWhole ? plain : new Uint8Array(plain),
    })
    while (lane.blobBytes > blobBytesMax) await this.#changed()
    return id
  }

  #check(): void {
    if (this.#failure) throw this.#failure.error
    if (this.#isFinished) throw new Fault('usage', 'save content: the saver is finished')
  }

  #fail(error: unknown): void {
    if (this.#failure || this.#isFinished) return
    this.#failure = { error }
    for (const job of this.#jobs.values()) job.reject(error)
    this.#jobs.clear()
    this.#blocks.fail(error)
    this.#files = []
    this.#wake()
    // The threads end by themselves from here on; `dispose` waits for them.
    for (const lane of this.#lanes) lane.stop().catch(() => undefined)
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** Waits for the next event; throws once the saver has failed. */
  async #changed(): Promise<void> {
    this.#check()
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#check()
  }

  #lane(index: number): Lane {
    const lane = this.#lanes[index]
    if (lane) return lane
    const created = new Lane(this.#setup, {
      onMessage: (from, message) => this.#receive(from, message),
      onFailure: (error) => this.#fail(error),
    })
    this.#lanes.push(created)
    return created
  }

  /** The lane with the least of something; another one is begun when all have some and there may be more. */
  #quietLane(load: (lane: Lane) => number): Lane {
    const [quiet] = this.#lanes.toSorted((a, b) => load(a) - load(b))
    if (quiet && (load(quiet) === 0 || this.#lanes.length >= this.#options.workers)) return quiet
    return this.#lane(this.#lanes.length)
  }

  // Not at once: calls made in the same turn go out in one message.
  #dispatchSoon(): void {
    if (this.#isDispatching) return
    this.#isDispatching = true
    setImmediate(() => {
      this.#isDispatching = false
      if (this.#failure) return
      try {
        this.#dispatch()
      } catch (error) {
        this.#fail(error)
      }
    })
  }

  #dispatch(): void {
    for (const [lane, { blobs }] of this.#batches) this.#sendBatch(lane, blobs)
    this.#batches.clear()
    while (this.#files.length > 0) {
      const lane = this.#laneForFiles()
      if (!lane) return
      // A few at a time, so that the next worker gets its share.
      const count = Math.min(filesMax - lane.files.size, Math.ceil(filesMax / 4))
      lane.sendFiles(this.#files.splice(0, count))
    }
  }

  #laneForFiles(): Lane | undefined {
    const free = this.#lanes.filter((lane) => lane.hasRoomForFiles)
    const [quiet] = free.toSorted((a, b) => a.files.size - b.files.size)
    if (this.#lanes.length < this.#options.workers && (!quiet || quiet.files.size > 0)) {
      return this.#lane(this.#lanes.length)
    }
    return quiet
  }

  #batch(lane: Lane, blob: Blob): void {
    // A large one is not copied once more to go with others.
    if (blob.plain.length >= batchBytes) return this.#sendBatch(lane, [blob])
    const batch = this.#batches.get(lane) ?? { blobs: [], sizeBytes: 0 }
    batch.blobs.push(blob)
    batch.sizeBytes += blob.plain.length
    this.#batches.set(lane, batch)
    if (batch.sizeBytes < batchBytes) return this.#dispatchSoon()
    this.#batches.delete(lane)
    this.#sendBatch(lane, batch.blobs)
  }

  #sendBatch(lane: Lane, blobs: readonly Blob[]): void {
    const entries = blobs.map(({ type, id, plain }) => ({ type, id, size: plain.length }))
    const bytes = joinBytes(blobs.map(({ plain }) => plain))
    lane.post({ kind: 'blobs', entries, bytes }, [bytes])
  }

  async #saveStream(
    job: number,
    source: AsyncIterable<Buffer>,
    progress: Progress | undefined,
  ): Promise<SavedContent> {
    const lane = await this.#laneForStream(job)
    const { promise, resolve, reject } = Promise.withResolvers<SavedContent>()
    // Whoever fails first is heard: the source below, or the worker.
    promise.catch(() => undefined)
    this.#jobs.set(job, { resolve, reject, progress: undefined })
    this.#pieces.set(
      job,
      Array.from({ length: piecesMax }, () => new ArrayBuffer(0)),
    )
    try {
      await this.#feed(lane, job, source, progress)
      return await promise
    } catch (error) {
      if (!this.#failure && this.#jobs.delete(job)) lane.post({ kind: 'drop', job })
      throw error
    } finally {
      lane.streams.delete(job)
      this.#pieces.delete(job)
      this.#wake()
    }
  }

  async #laneForStream(job: number): Promise<Lane> {
    for (;;) {
      const lane = this.#quietLane((other) => other.streams.size + (other.isBusy ? 1 : 0))
      if (lane.streams.size < streamsMax) {
        lane.streams.add(job)
        return lane
      }
      await this.#changed()
    }
  }

  async #feed(
    lane: Lane,
    job: number,
    source: AsyncIterable<Buffer>,
    progress: Progress | undefined,
  ): Promise<void> {
    let piece = await this.#takePiece(job)
    let size = 0
    for await (const bytes of source) {
      this.#check()
      if (progress) progress.doneBytes += bytes.length
      for (let at = 0; at < bytes.length; ) {
        const copied = bytes.copy(new Uint8Array(piece), size, at)
        size += copied
        at += copied
        if (size < piece.byteLength) break
        lane.post({ kind: 'piece', job, bytes: piece, size, isLast: false }, [piece])
        piece = await this.#takePiece(job)
        size = 0
      }
    }
    lane.post({ kind: 'piece', job, bytes: piece, size, isLast: true }, [piece])
  }

  /** Memory for the next bytes of a stream: comes back from the worker once those before are cut. */
  async #takePiece(job: number): Promise<ArrayBuffer> {
    for (;;) {
      const piece = this.#pieces.get(job)?.pop()
      if (piece) return piece.byteLength > 0 ? piece : new ArrayBuffer(pieceBytes)
      await this.#changed()
    }
  }

  #receive(lane: Lane, message: FromWorker): void {
    if (this.#failure) return
    try {
      this.#handle(lane, message)
    } catch (error) {
      this.#fail(error)
    }
    this.#wake()
  }

  #handle(lane: Lane, message: FromWorker): void {
    switch (message.kind) {
      case 'results':
        this.#settleAll(lane, message.results, Buffer.from(message.ids))
        return this.#dispatchSoon()
      case 'returned':
        return this.#takeBack(lane, message.jobs)
      case 'read': {
        const progress = this.#jobs.get(message.job)?.progress
        if (progress) progress.doneBytes += message.sizeBytes
        return
      }
      case 'taken':
        this.#pieces.get(message.job)?.push(message.bytes)
        return
      case 'failed':
        return this.#fail(new Fault(message.code, message.message))
      case 'stored':
        lane.blobBytes -= message.weightBytes
        return
      case 'saved':
        return this.#blocks.settle(message)
      case 'pack':
        return this.#storePack(lane, message)
      case 'flushed':
        this.#flushed.set(lane, message)
        return
      default:
        message satisfies never
    }
  }

  #settleAll(lane: Lane, results: readonly JobResult[], ids: Buffer): void {
    let at = 0
    for (const result of results) {
      const blobs: string[] = []
      for (const end = at + (('blobs' in result) ? result.blobs * 32 : 0); at < end; at += 32) {
        blobs.push(ids.toString('hex', at, at + 32))
      }
      this.#settle(lane, result, blobs)
    }
  }

  #settle(lane: Lane, result: JobResult, blobs: readonly string[]): void {
    lane.files.delete(result.job)
    lane.isBusy = false
    const job = this.#jobs.get(result.job)
    this.#jobs.delete(result.job)
    if (!job) return
    if ('code' in result) {
      const { code, message, cause } = result
      return job.reject(new Fault(code, message, { cause }))
    }
    job.resolve({ blobs, sizeBytes: BigInt(result.sizeBytes) })
  }

  #takeBack(lane: Lane, jobs: readonly FileJob[]): void {
    lane.isBusy = true
    for (const { job } of jobs) lane.files.delete(job)
    this.#files.unshift(...jobs)
    this.#dispatchSoon()
  }

  #storePack(lane: Lane, { id, pack }: Extract<FromWorker, { kind: 'pack' }>): void {
    const bytes = Buffer.from(pack.bytes, 0, pack.size)
    this.#uploads.start(checkPack(this.#cipher, bytes, id), () => {
      if (this.#failure) return
      try {
        this.#uploads.check()
        lane.giveRoom(pack.type, pack.bytes)
      } catch (error) {
        this.#fail(error)
      }
      this.#wake()
    })
  }

  async finish(): Promise<SaverStats> {
    this.#check()
    while (this.#isBusy()) await this.#changed()
    for (const lane of this.#lanes) lane.post({ kind: 'flush' })
    while (this.#flushed.size < this.#lanes.length) await this.#changed()
    for (const pack of this.#leftovers()) {
      const bytes = closePack(this.#cipher, pack)
      await this.#uploads.room()
      this.#uploads.start(checkPack(this.#cipher, bytes, sha256Hex(bytes)))
    }
    await this.#uploads.idle()
    this.#uploads.check()
    await this.#writer.flush()
    this.#check()
    this.#isFinished = true
    return this.#stats()
  }

  #isBusy(): boolean {
    const isSending = this.#lanes.some((lane) => lane.blobBytes > 0)
    return this.#jobs.size > 0 || this.#blocks.inFlight > 0 || isSending
  }

  /** What the workers' open packs hold, joined as far as it fits. */
  #leftovers(): OpenPack[] {
    const open = [...this.#flushed.values()].flatMap((message) =>
      message.packs.map(({ type, bytes, size, header }) => {
        return { type, bytes: Buffer.from(bytes), size, header: new Writer(1024).bytes(header) }
      }),
    )
    const [data, tree] = (['data', 'tree'] as const).map((type) =>
      mergeSmall(open.filter((pack) => pack.type === type)),
    )
    return [...(data ?? []), ...(tree ?? [])]
  }

  #stats(): SaverStats {
    const stats = { dataBlobs: 0, treeBlobs: 0, addedBytes: 0n, storedBytes: 0n }
    for (const { added } of this.#flushed.values()) {
      stats.dataBlobs += added.dataBlobs
      stats.treeBlobs += added.treeBlobs
      stats.addedBytes += added.plainBytes
      stats.storedBytes += added.storedBytes
    }
    return stats
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isFinished) this.#fail(new Fault('interrupted', 'save content: given up'))
    this.#options.signal.removeEventListener('abort', this.#onAbort)
    await Promise.all(this.#lanes.map((lane) => lane.stop()))
    await this.#uploads.idle()
    this.#cipher[Symbol.dispose]()
  }
}

function isUnshared(bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer
}

function joinBytes(parts: readonly Uint8Array<ArrayBuffer>[]): ArrayBuffer {
  const [first] = parts
  if (first && parts.length === 1) return first.buffer
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    joined.set(part, at)
    at += part.length
  }
  return joined.buffer
}
