import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { assert, Fault, fromSystem } from '#base/faults'
import type { Progress } from '#base/progress'
import { systemTime } from '#base/time'
import type { Content } from '#change/tree'
import type { Storage } from '#storage'
import { BlobMaker } from './blob-maker.ts'
import type { Chunker } from './chunker.ts'
import type { CompressionMode } from './compression.ts'
import type { EnvelopeKeys } from './crypto.ts'
import type { BlobIndex } from './index/blob-index.ts'
import { IndexWriter } from './index/index-writer.ts'
import { finishPack, mergeSmall, type OpenPack } from './packer.ts'
import type { BlobSaver, BlobType, SavedContent, SaverStats } from './repository.ts'
import { PackUploads } from './uploads.ts'

let saversOpened = 0

export function openSaver(options: {
  readonly storage: Storage
  readonly index: BlobIndex
  readonly keys: EnvelopeKeys
  readonly polynomial: bigint
  readonly saveIndex: (text: string) => Promise<void>
  readonly mode: CompressionMode
  readonly signal: AbortSignal
}): BlobSaver {
  return new LocalSaver(options)
}

class LocalSaver implements BlobSaver {
  readonly #maker: BlobMaker
  readonly #uploads: PackUploads
  readonly #writer: IndexWriter
  #turn: Promise<unknown> = Promise.resolve()
  #finished = false

  constructor(options: Parameters<typeof openSaver>[0]) {
    const { storage, index, signal } = options
    this.#writer = new IndexWriter(options.saveIndex, systemTime)
    this.#uploads = new PackUploads({ storage, index, writer: this.#writer, signal })
    const setup = {
      keys: options.keys,
      polynomial: options.polynomial.toString(16),
      mode: options.mode,
      table: index.table.shared,
      saver: ++saversOpened,
      chunkers: 1,
    }
    this.#maker = new BlobMaker(setup, (pack) => this.#store(pack))
  }

  #store(pack: OpenPack): void {
    this.#uploads.start(finishPack(this.#maker.cipher, pack))
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work)
    this.#turn = result.catch(() => undefined)
    return result
  }

  async saveContent(content: Content, progress?: Progress): Promise<SavedContent> {
    return this.#inTurn(async () => {
      const [chunker] = this.#maker.chunkers
      assert(chunker, 'there is a chunker')
      chunker.reset()
      const blobs: string[] = []
      let sizeBytes = 0n
      const pieces =
        content.kind === 'path' ? readPath(content.path, chunker) : fill(content.read(), chunker)
      for await (const size of pieces) {
        sizeBytes += BigInt(size)
        if (progress) progress.doneBytes += size
        for (let chunk = chunker.next(size === 0); chunk; chunk = chunker.next(size === 0)) {
          blobs.push(this.#maker.take('data', chunk).toString('hex'))
          await this.#uploads.room()
        }
      }
      return { blobs, sizeBytes }
    })
  }

  async saveBlob(
    type: BlobType,
    plain: Uint8Array,
    options: { again?: boolean } = {},
  ): Promise<string> {
    return this.#inTurn(async () => {
      await this.#uploads.room()
      return this.#maker.take(type, plain, options.again).toString('hex')
    })
  }

  async finish(): Promise<SaverStats> {
    await this.#turn
    for (const type of ['data', 'tree'] as const) {
      for (const pack of mergeSmall(this.#maker.takeOpen(type))) this.#store(pack)
    }
    await this.#uploads.idle()
    this.#uploads.check()
    await this.#writer.flush()
    this.#finished = true
    const { dataBlobs, treeBlobs, plainBytes, storedBytes } = this.#maker.added
    return { dataBlobs, treeBlobs, addedBytes: plainBytes, storedBytes }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#finished) await this.#uploads.idle()
  }
}

/** Fills the chunker from a file; yields the sizes of the pieces, and 0 at the end. */
function* readPath(path: Buffer, chunker: Chunker): Generator<number> {
  // Not blocking on a FIFO, nor following a link, that took the file's place since it was looked at.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const file = system(path, () => openSync(path, flags))
  try {
    if (!fstatSync(file).isFile()) {
      throw new Fault('io', `read ${path.toString()}: it is no longer a regular file`)
    }
    for (;;) {
      const room = chunker.room()
      const size = system(path, () => readSync(file, room, 0, room.length, null))
      chunker.filled(size)
      yield size
      if (size === 0) return
    }
  } finally {
    closeSync(file)
  }
}

function system<T>(path: Buffer, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromSystem(error, `read ${path.toString()}`)
  }
}

async function* fill(source: AsyncIterable<Buffer>, chunker: Chunker): AsyncGenerator<number> {
  for await (let piece of source) {
    while (piece.length > 0) {
      const room = chunker.room()
      const size = piece.copy(room, 0, 0, room.length)
      chunker.filled(size)
      yield size
      piece = piece.subarray(size)
    }
  }
  yield 0
}
