import { Worker } from 'node:worker_threads'
import { Fault } from '#base/faults'
import type { EnvelopeKeys } from './crypto.ts'
import { copyBytes } from './native-calls.ts'
import type { PackedBlob } from './repository.ts'

/** Blobs that a thread works at, or that wait for it, or are being used. */
const slotsPerWorker = 3
/** The largest that passes: any chunk does. */
export const openedBytesMax = 8 * 2 ** 20

export type OpenRequest = {
  readonly slot: number
  readonly blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>
  readonly envelope: SharedArrayBuffer
  readonly envelopeBytes: number
  readonly plain: SharedArrayBuffer
}
/** The size of the plain bytes; undefined when the envelope does not hold them. */
export type OpenAnswer = { readonly slot: number; readonly sizeBytes: number | undefined }

/** Memory for one blob on its way through a thread. */
type Slot = {
  readonly index: number
  readonly worker: number
  envelope: Buffer<SharedArrayBuffer>
  plain: Buffer<SharedArrayBuffer>
  settle?: ((sizeBytes: number | undefined) => void) | undefined
  reject?: ((error: unknown) => void) | undefined
}

/** Opens envelopes on other threads, in memory that is used again. Calls may overlap; each waits for its turn. */
export class BlobOpeners implements AsyncDisposable {
  readonly #workers: readonly Worker[]
  readonly #slots: readonly Slot[]
  readonly #free: Slot[]
  readonly #waiting: (() => void)[] = []
  #failure: { readonly error: unknown } | undefined
  #isEnding = false

  constructor(keys: EnvelopeKeys, workers: number) {
    this.#workers = Array.from({ length: workers }, () => this.#begin(keys))
    const none = Buffer.from(new SharedArrayBuffer(0))
    this.#slots = Array.from({ length: workers * slotsPerWorker }, (_, index) => {
      return { index, worker: index % workers, envelope: none, plain: none }
    })
    this.#free = this.#slots.toReversed()
  }

  #begin(keys: EnvelopeKeys): Worker {
    const worker = new Worker(new URL('./blob-openers-worker.ts', import.meta.url), {
      workerData: keys,
      resourceLimits: { maxYoungGenerationSizeMb: 8 },
    })
    worker.on('message', ({ slot, sizeBytes }: OpenAnswer) => {
      this.#slots[slot]?.settle?.(sizeBytes)
    })
    worker.once('error', (error) => this.#fail(error))
    worker.once('exit', () => this.#fail(new Fault('io', 'open blobs: a worker ended early')))
    return worker
  }

  #fail(error: unknown): void {
    if (this.#isEnding) return
    this.#failure ??= { error }
    for (const slot of this.#slots) slot.reject?.(error)
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /**
   * Hands the plain bytes to `use`, after whose promise they are written over; false, and no call, when the envelope does
   * not hold the blob. Not for blobs of more than `openedBytesMax`.
   */
  async open(
    blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>,
    envelope: Uint8Array,
    use: (plain: Buffer) => Promise<void>,
  ): Promise<boolean> {
    const slot = await this.#take()
    try {
      const sizeBytes = await this.#ask(slot, blob, envelope)
      if (sizeBytes === undefined) return false
      await use(slot.plain.subarray(0, sizeBytes))
      return true
    } finally {
      slot.settle = undefined
      slot.reject = undefined
      this.#free.push(slot)
      this.#waiting.shift()?.()
    }
  }

  async #take(): Promise<Slot> {
    for (;;) {
      if (this.#failure) throw this.#failure.error
      const slot = this.#free.pop()
      if (slot) return slot
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }

  #ask(
    slot: Slot,
    blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>,
    envelope: Uint8Array,
  ): Promise<number | undefined> {
    slot.envelope = grown(slot.envelope, envelope.length)
    slot.plain = grown(slot.plain, Math.max(blob.plainLength, envelope.length))
    copyBytes(slot.envelope, envelope)
    const { id, type, plainLength } = blob
    const request: OpenRequest = {
      slot: slot.index,
      blob: { id, type, plainLength },
      envelope: slot.envelope.buffer,
      envelopeBytes: envelope.length,
      plain: slot.plain.buffer,
    }
    return new Promise((resolve, reject) => {
      slot.settle = resolve
      slot.reject = reject
      this.#workers[slot.worker]?.postMessage(request)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}

function grown(memory: Buffer<SharedArrayBuffer>, size: number): Buffer<SharedArrayBuffer> {
  if (memory.length >= size) return memory
  return Buffer.from(new SharedArrayBuffer(2 ** Math.ceil(Math.log2(size))))
}
