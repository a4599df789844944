import { Worker } from 'node:worker_threads'
import { Fault } from '#base/faults'
import type { EnvelopeKeys } from './crypto.ts'
import { copyBytes } from './native-calls.ts'
import type { BlobPlacing, PackedBlob } from './repository.ts'

/** Blobs that a thread works at, or that wait for it, or are being used. */
const slotsPerWorker = 3
/** The largest that passes: any chunk does. */
export const openedBytesMax = 8 * 2 ** 20

export type AskedBlob = Pick<PackedBlob, 'id' | 'type' | 'plainLength'> & {
  /** Where its envelope lies. */
  readonly at: number
  readonly length: number
  readonly places: BlobPlacing['places']
}
export type OpenRequest = {
  readonly slot: number
  readonly envelopes: SharedArrayBuffer
  readonly blobs: readonly AskedBlob[]
  /** Where the plain bytes go of a single blob that has no places. */
  readonly plain: SharedArrayBuffer | undefined
}
export type OpenAnswer = {
  readonly slot: number
  /** The sizes of the plain bytes; undefined where the envelope does not hold them. */
  readonly sizes: readonly (number | undefined)[]
  /** Writing one of them failed, and the ones behind it were left out. */
  readonly failure: WriteFailure | undefined
}
/** What is left of a system's error on its way between threads. */
export type WriteFailure = {
  readonly blob: number
  readonly place: number
  readonly message: string
  readonly code: string
}

/** Memory for one blob on its way through a thread. */
type Slot = {
  readonly index: number
  readonly worker: number
  envelope: Buffer<SharedArrayBuffer>
  plain: Buffer<SharedArrayBuffer>
  settle?: ((answer: OpenAnswer) => void) | undefined
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
    worker.on('message', (answer: OpenAnswer) => this.#slots[answer.slot]?.settle?.(answer))
    worker.once('error', (error) => void this.#fail(error))
    worker.once('exit', () => void this.#fail(new Fault('io', 'open blobs: a worker ended early')))
    return worker
  }

  // The others end before anybody hears of it: they write to files that are closed then.
  async #fail(error: unknown): Promise<void> {
    if (this.#isEnding) return
    this.#isEnding = true
    this.#failure = { error }
    await this.#terminate()
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
      const { id, type, plainLength } = blob
      slot.plain = grown(slot.plain, Math.max(plainLength, envelope.length))
      const asked = { id, type, plainLength, at: 0, length: envelope.length, places: [] }
      const { sizes } = await this.#ask(slot, [asked], envelope, slot.plain.buffer)
      const [sizeBytes] = sizes
      if (sizeBytes === undefined) return false
      await use(slot.plain.subarray(0, sizeBytes))
      return true
    } finally {
      this.#give(slot)
    }
  }

  /**
   * Opens blobs whose envelopes lie in `envelopes` and writes them to their places; says of each whether its envelope
   * holds it by the size, or undefined. Throws what the system said of the first that could not be written.
   */
  async place(
    blobs: readonly (Omit<AskedBlob, 'places'> & { readonly placing: BlobPlacing })[],
    envelopes: Uint8Array,
  ): Promise<readonly (number | undefined)[]> {
    const slot = await this.#take()
    try {
      const asked = blobs.map(({ id, type, plainLength, at, length, placing: { places } }) => {
        return { id, type, plainLength, at, length, places }
      })
      const { sizes, failure } = await this.#ask(slot, asked, envelopes)
      if (failure) {
        const { blob, place, code, message } = failure
        throw blobs[blob]?.placing.fault(place, Object.assign(new Error(message), { code }))
      }
      return sizes
    } finally {
      this.#give(slot)
    }
  }

  #give(slot: Slot): void {
    slot.settle = undefined
    slot.reject = undefined
    this.#free.push(slot)
    this.#waiting.shift()?.()
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
    blobs: readonly AskedBlob[],
    envelopes: Uint8Array,
    plain?: SharedArrayBuffer,
  ): Promise<OpenAnswer> {
    slot.envelope = grown(slot.envelope, envelopes.length)
    copyBytes(slot.envelope, envelopes)
    const request: OpenRequest = {
      slot: slot.index,
      envelopes: slot.envelope.buffer,
      blobs,
      plain,
    }
    return new Promise((resolve, reject) => {
      slot.settle = resolve
      slot.reject = reject
      this.#workers[slot.worker]?.postMessage(request)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true
    await this.#terminate()
  }

  async #terminate(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
  }
}

function grown(memory: Buffer<SharedArrayBuffer>, size: number): Buffer<SharedArrayBuffer> {
  if (memory.length >= size) return memory
  return Buffer.from(new SharedArrayBuffer(2 ** Math.ceil(Math.log2(size))))
}
