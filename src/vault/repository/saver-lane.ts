import { Worker } from 'node:worker_threads'
import { assert, Fault } from '#base/faults'
import type { MakerSetup } from './blob-maker.ts'
import type { BlobType } from './repository.ts'
import {
  stopWord,
  wakeWord,
  type FileJob,
  type FromWorker,
  type ToWorker,
  type WorkerSetup,
} from './saver-protocol.ts'

/** Files that a worker has been told of and that have no result yet. */
export const filesMax = 64
/** Blobs on their way to a worker, in bytes and weight: whoever brings more waits. */
export const blobBytesMax = 16 * 1024 * 1024
const stopWithinMs = 10_000

export type LaneEvents = {
  /** Called for each message. */
  readonly onMessage: (lane: Lane, message: FromWorker) => void
  /** The thread ended by itself: a defect, or the memory ran out. */
  readonly onFailure: (error: unknown) => void
}

/** The saver's side of one worker thread. */
export class Lane {
  readonly #worker: Worker
  readonly #control: Int32Array
  readonly #ended: Promise<void>
  #isStopping = false
  /** Jobs without a result. */
  readonly files = new Set<number>()
  readonly streams = new Set<number>()
  blobBytes = 0
  /** Blocks on their way. */
  blocks = 0
  /** It works at a large file, and takes no other files until that is done. */
  isBusy = false

  constructor(maker: MakerSetup, events: LaneEvents) {
    const control = new SharedArrayBuffer(8)
    this.#control = new Int32Array(control)
    const workerData: WorkerSetup = { maker, control }
    this.#worker = new Worker(new URL('./saver-worker.ts', import.meta.url), {
      workerData,
      // Almost all memory lies outside of the heap; a small young generation keeps the garbage in it small.
      resourceLimits: { maxYoungGenerationSizeMb: 8 },
    })
    this.#worker.on('message', (message: FromWorker) => events.onMessage(this, message))
    this.#worker.once('error', (error) => events.onFailure(error))
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        if (!this.#isStopping)
          events.onFailure(new Fault('io', 'save content: a worker ended early'))
        resolve()
      })
    })
  }

  get hasRoomForFiles(): boolean {
    return !this.isBusy && this.files.size < filesMax
  }

  post(message: ToWorker, transfer: readonly ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, transfer)
  }

  sendFiles(jobs: readonly FileJob[]): void {
    assert(!this.isBusy, 'files go to a worker that takes them')
    for (const { job } of jobs) this.files.add(job)
    this.post({ kind: 'files', jobs })
  }

  /** Gives a pack's memory back to the worker, which may be waiting for it. */
  giveRoom(type: BlobType, bytes: SharedArrayBuffer): void {
    if (this.#isStopping) return
    this.post({ kind: 'room', type, bytes })
    this.#wake()
  }

  #wake(): void {
    Atomics.add(this.#control, wakeWord, 1)
    Atomics.notify(this.#control, wakeWord)
  }

  /** Ends the thread between two steps of its work: it may hold the lock of the shared table. */
  async stop(): Promise<void> {
    if (!this.#isStopping) {
      this.#isStopping = true
      Atomics.store(this.#control, stopWord, 1)
      this.post({ kind: 'stop' })
      this.#wake()
    }
    const timer = setTimeout(() => void this.#worker.terminate(), stopWithinMs)
    await this.#ended
    clearTimeout(timer)
  }
}
