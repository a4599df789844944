import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { parentPort, receiveMessageOnPort, workerData, type MessagePort } from 'node:worker_threads'
import type { CreateInspector, Inspect } from '#base/blocks'
import { assert, isFault } from '#base/faults'
import { BlobMaker } from './blob-maker.ts'
import { sha256Hex } from './blob-id.ts'
import type { Chunker } from './chunker.ts'
import { chunkBytesMin } from './limits.ts'
import { closePack, packRoomBytes, type OpenPack, type PackMemory } from './packer.ts'
import { readFile } from './read-file.ts'
import type { BlobType } from './repository.ts'
import {
  blobWeightBytes,
  stopWord,
  wakeWord,
  type FileJob,
  type FromWorker,
  type JobResult,
  type ToWorker,
  type WorkerSetup,
} from './saver-protocol.ts'

/** Packs of a type whose memory may be out at a time: the open ones, and some on their way to the store. */
const packsMax: Readonly<Record<BlobType, number>> = { data: 4, tree: 3 }
/** A file that is longer than this is worth handing the waiting jobs to other workers. */
const largeBytes = 8 * 1024 * 1024
/** How much of a file is read between two looks at the messages. */
const lookBytes = 8 * 1024 * 1024
/** Results that are gathered into one message at most. */
const resultsMax = 64

/** Unwinds the work when the saver has been given up. */
class Stopped extends Error {}

/** Ids of a file's chunks so far. */
type Cutting = { readonly ids: Buffer[]; sizeBytes: number }
type Stream = Cutting & { readonly chunker: Chunker }

/** One worker thread of a saver. All work is synchronous; messages are looked for in between. */
class SaverWorker implements Disposable {
  readonly #port: MessagePort
  readonly #control: Int32Array
  readonly #maker: BlobMaker
  readonly #fileChunker: Chunker
  readonly #freeChunkers: Chunker[]
  readonly #streams = new Map<number, Stream>()
  readonly #rooms: Record<BlobType, PackMemory[]> = { data: [], tree: [] }
  readonly #roomsMade: Record<BlobType, number> = { data: 0, tree: 0 }
  #files: FileJob[] = []
  /** What came in the middle of a blob, when nothing but memory can be taken in. */
  readonly #deferred: ToWorker[] = []
  #results: JobResult[] = []
  #resultIds: Buffer[] = []
  readonly #inspectors = new Map<string, Inspect>()
  #isBusyWithLarge = false

  constructor(port: MessagePort, setup: WorkerSetup) {
    this.#port = port
    this.#control = new Int32Array(setup.control)
    this.#maker = new BlobMaker(
      setup.maker,
      (pack) => this.#storePack(pack),
      (type) => this.#takeRoom(type),
    )
    const [first, ...others] = this.#maker.chunkers
    assert(first, 'a worker has a chunker for files')
    this.#fileChunker = first
    this.#freeChunkers = others
  }

  #post(message: FromWorker, transfer: readonly ArrayBuffer[] = []): void {
    this.#port.postMessage(message, transfer)
  }

  /** Handles a message and all that it brings about. */
  receive(message: ToWorker): void {
    this.#handle(message)
    for (;;) {
      const job = this.#files.shift()
      const late = job ? undefined : this.#deferred.shift()
      if (job) this.#saveFile(job)
      else if (late) this.#handle(late)
      else break
    }
    this.#sendResults()
  }

  #handle(message: ToWorker): void {
    switch (message.kind) {
      case 'files':
        if (this.#isBusyWithLarge) this.#post({ kind: 'returned', jobs: message.jobs })
        else this.#files.push(...message.jobs)
        return
      case 'piece':
        return this.#takePiece(message)
      case 'drop':
        return this.#endStream(message.job)
      case 'blobs':
        return this.#storeBlobs(message)
      case 'block':
        return this.#saveBlock(message)
      case 'room':
        return this.#giveRoom(message.type, Buffer.from(message.bytes))
      case 'flush':
        return this.#flush()
      case 'stop':
        throw new Stopped()
      default:
        message satisfies never
    }
  }

  #checkStop(): void {
    if (Atomics.load(this.#control, stopWord) !== 0) throw new Stopped()
  }

  /** Takes in what has arrived meanwhile. */
  #look(): void {
    this.#checkStop()
    for (;;) {
      const message = this.#deferred.shift() ?? this.#receiveNow()
      if (!message) return
      this.#handle(message)
    }
  }

  #receiveNow(): ToWorker | undefined {
    const received = receiveMessageOnPort(this.#port) as { message: ToWorker } | undefined
    return received?.message
  }

  #saveFile({ job, path, holes }: FileJob): void {
    const cutting: Cutting = { ids: [], sizeBytes: 0 }
    const chunker = this.#fileChunker
    let unreported = 0
    chunker.reset()
    try {
      const file = { path: Buffer.from(path, 'latin1'), holes }
      readFile(file, chunker, (sizeBytes, isLast, zeroChunks) => {
        if (zeroChunks > 0) this.#repeatZeroChunk(cutting, chunker, zeroChunks)
        this.#cut(cutting, chunker, sizeBytes, isLast)
        unreported += sizeBytes
        if (unreported < lookBytes) return
        this.#report(job, unreported)
        unreported = 0
        if (cutting.sizeBytes >= largeBytes && !isLast) this.#returnFiles()
        this.#look()
      })
      this.#finishJob(job, cutting)
    } catch (error) {
      this.#failJob(job, error)
    } finally {
      this.#isBusyWithLarge = false
    }
  }

  #returnFiles(): void {
    if (this.#isBusyWithLarge) return
    this.#isBusyWithLarge = true
    this.#sendResults()
    // Also without any: the saver learns that this worker will be busy for a while.
    this.#post({ kind: 'returned', jobs: this.#files })
    this.#files = []
  }

  #report(job: number, sizeBytes: number): void {
    this.#post({ kind: 'read', job, sizeBytes })
  }

  #cut(cutting: Cutting, chunker: Chunker, sizeBytes: number, isLast: boolean): void {
    cutting.sizeBytes += sizeBytes
    for (let chunk = chunker.next(isLast); chunk; chunk = chunker.next(isLast)) {
      cutting.ids.push(this.#maker.take(chunk))
    }
  }

  /** The chunks of a hole are all the same: one is made, and counted as often as it occurs. */
  #repeatZeroChunk(cutting: Cutting, chunker: Chunker, count: number): void {
    chunker.room().fill(0, 0, chunkBytesMin)
    chunker.filled(chunkBytesMin)
    const chunk = chunker.next(false)
    assert(chunk?.length === chunkBytesMin, 'zeroes are cut as soon as a chunk may end')
    const id = this.#maker.take(chunk)
    for (let index = 0; index < count; index++) cutting.ids.push(id)
  }

  #finishJob(job: number, { ids, sizeBytes }: Cutting): void {
    this.#addResult({ job, blobs: ids.length, sizeBytes }, ids)
  }

  /** What goes wrong with one file is that file's result; anything else ends the worker. */
  #failJob(job: number, error: unknown): void {
    if (!isFault(error) || error.code === 'corrupt') throw error
    this.#addResult({ job, code: error.code, message: error.message, cause: error.cause })
  }

  #addResult(result: JobResult, ids: readonly Buffer[] = []): void {
    this.#results.push(result)
    for (const id of ids) this.#resultIds.push(id)
    if (this.#results.length >= resultsMax) this.#sendResults()
  }

  #sendResults(): void {
    if (this.#results.length === 0) return
    const ids = new Uint8Array(this.#resultIds.length * 32)
    for (const [i, id] of this.#resultIds.entries()) ids.set(id, i * 32)
    this.#post({ kind: 'results', results: this.#results, ids: ids.buffer }, [ids.buffer])
    this.#results = []
    this.#resultIds = []
  }

  #takePiece({ job, bytes, size, isLast }: Extract<ToWorker, { kind: 'piece' }>): void {
    const stream = this.#streams.get(job) ?? this.#beginStream(job)
    const { chunker } = stream
    const piece = Buffer.from(bytes, 0, size)
    let at = 0
    do {
      const copied = piece.copy(chunker.room(), 0, at)
      at += copied
      chunker.filled(copied)
      this.#cut(stream, chunker, copied, isLast && at === size)
    } while (at < size)
    this.#checkStop()
    this.#post({ kind: 'taken', job, bytes }, [bytes])
    if (!isLast) return
    this.#finishJob(job, stream)
    this.#endStream(job)
    this.#sendResults()
  }

  #beginStream(job: number): Stream {
    const chunker = this.#freeChunkers.pop()
    assert(chunker, 'the saver begins no more streams than a worker has chunkers')
    chunker.reset()
    const stream: Stream = { chunker, ids: [], sizeBytes: 0 }
    this.#streams.set(job, stream)
    return stream
  }

  #endStream(job: number): void {
    const stream = this.#streams.get(job)
    if (!stream) return
    this.#streams.delete(job)
    this.#freeChunkers.push(stream.chunker)
  }

  #storeBlobs({ entries, bytes }: Extract<ToWorker, { kind: 'blobs' }>): void {
    let at = 0
    for (const { type, id, size } of entries) {
      this.#maker.store(type, Buffer.from(id, 'hex'), new Uint8Array(bytes, at, size))
      at += size
    }
    this.#post({ kind: 'stored', weightBytes: at + entries.length * blobWeightBytes })
  }

  #saveBlock({ job, bytes, size, offset, inspection }: Extract<ToWorker, { kind: 'block' }>): void {
    const block = this.#maker.hold(Buffer.from(bytes, 0, size))
    const inspect = inspection && this.#inspector(inspection.module)
    const said = inspect?.(this.#maker.blockAt, size, offset, inspection?.setup)
    const id = this.#maker.takeHeld(block).toString('hex')
    this.#checkStop()
    this.#post({ kind: 'saved', job, id, said })
  }

  #inspector(module: string): Inspect {
    const known = this.#inspectors.get(module)
    if (known) return known
    const load = createRequire(import.meta.url)
    const { createInspector } = load(fileURLToPath(module)) as { createInspector: CreateInspector }
    const inspect = createInspector(this.#maker.inspectorRoom)
    this.#inspectors.set(module, inspect)
    return inspect
  }

  #storePack(pack: OpenPack): void {
    const whole = closePack(this.#maker.cipher, pack)
    const parts = { type: pack.type, bytes: pack.bytes.buffer, size: whole.length }
    this.#post({ kind: 'pack', id: sha256Hex(whole), pack: parts })
  }

  /** Memory for another pack; waits until one is stored when too many are on their way. */
  #takeRoom(type: BlobType): PackMemory {
    for (;;) {
      const seen = Atomics.load(this.#control, wakeWord)
      const room = this.#rooms[type].pop()
      if (room) return room
      if (this.#roomsMade[type] < packsMax[type]) {
        this.#roomsMade[type]++
        return Buffer.from(new SharedArrayBuffer(packRoomBytes))
      }
      // Results would only be waited for by those who could go on meanwhile.
      this.#sendResults()
      this.#lookForRooms()
      if (this.#rooms[type].length > 0 || this.#roomsMade[type] < packsMax[type]) continue
      Atomics.wait(this.#control, wakeWord, seen, 1000)
      this.#checkStop()
    }
  }

  #lookForRooms(): void {
    this.#checkStop()
    for (let message = this.#receiveNow(); message; message = this.#receiveNow()) {
      if (message.kind === 'room') this.#giveRoom(message.type, Buffer.from(message.bytes))
      else this.#deferred.push(message)
    }
  }

  #giveRoom(type: BlobType, room: PackMemory): void {
    if (room.length === packRoomBytes) this.#rooms[type].push(room)
    else this.#roomsMade[type]--
  }

  [Symbol.dispose](): void {
    this.#maker[Symbol.dispose]()
  }

  #flush(): void {
    const packs = (['data', 'tree'] as const).flatMap((type) =>
      this.#maker.takeOpen(type).map((pack) => ({
        type,
        bytes: pack.bytes.buffer,
        size: pack.size,
        header: Uint8Array.from(pack.header.done()),
      })),
    )
    for (const { type } of packs) this.#roomsMade[type]--
    this.#post({ kind: 'flushed', packs, added: this.#maker.added })
  }
}

assert(parentPort, 'this module runs in a worker thread')
const port = parentPort
const worker = new SaverWorker(port, workerData as WorkerSetup)
port.on('message', (message: ToWorker) => {
  try {
    worker.receive(message)
  } catch (error) {
    // A Fault would cross threads as a plain error; anything else is a defect and ends the thread loudly.
    if (isFault(error))
      port.postMessage({ kind: 'failed', code: error.code, message: error.message })
    else if (!(error instanceof Stopped)) throw error
    worker[Symbol.dispose]()
    port.close()
  }
})
