import { Worker } from 'node:worker_threads'
import { Fault } from '#base/faults'
import type { EnvelopeKeys } from './crypto.ts'
import type { PackDamage } from './pack-proof.ts'
import type { IndexedPack } from './repository.ts'

/** Proves packs that are in memory, on other threads. Calls may overlap; each waits for a free thread. */
export interface PackProver extends AsyncDisposable {
  /** Takes the bytes for itself. Undefined when the pack is sound. */
  prove(pack: IndexedPack, bytes: Buffer): Promise<PackDamage | undefined>
}

export type ProverRequest = { readonly pack: IndexedPack; readonly bytes: ArrayBuffer }
export type ProverAnswer = { readonly damage: PackDamage | undefined }

export function openPackProver(keys: EnvelopeKeys, workers: number): PackProver {
  return new WorkerProver(keys, workers)
}

class WorkerProver implements PackProver {
  readonly #free: Worker[]
  readonly #all: readonly Worker[]
  #waiting: (() => void)[] = []

  constructor(keys: EnvelopeKeys, workers: number) {
    const url = new URL('./pack-prover-worker.ts', import.meta.url)
    this.#all = Array.from({ length: Math.max(1, workers) }, () => {
      return new Worker(url, { workerData: keys, resourceLimits: { maxYoungGenerationSizeMb: 8 } })
    })
    this.#free = [...this.#all]
  }

  async prove(pack: IndexedPack, bytes: Buffer): Promise<PackDamage | undefined> {
    let worker = this.#free.pop()
    while (!worker) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
      worker = this.#free.pop()
    }
    try {
      return await ask(worker, { pack, bytes: ownMemory(bytes) })
    } finally {
      this.#free.push(worker)
      this.#waiting.shift()?.()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map(async (worker) => worker.terminate()))
  }
}

/** The bytes as memory that can be handed over: the very memory where nobody else has a part of it. */
function ownMemory({ buffer, byteOffset, byteLength }: Buffer): ArrayBuffer {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) return buffer
  const own = new ArrayBuffer(byteLength)
  new Uint8Array(own).set(new Uint8Array(buffer, byteOffset, byteLength))
  return own
}

async function ask(worker: Worker, request: ProverRequest): Promise<PackDamage | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<ProverAnswer>()
  const exited = () =>
    reject(new Fault('io', `prove pack ${request.pack.id}: a worker ended early`))
  worker.once('message', resolve).once('error', reject).once('exit', exited)
  worker.postMessage(request, [request.bytes])
  try {
    return (await promise).damage
  } finally {
    worker.off('message', resolve).off('error', reject).off('exit', exited)
  }
}
