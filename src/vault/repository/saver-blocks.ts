import type { Inspection, Written } from '#base/blocks'
import { blockBytes } from './limits.ts'
import { copyBytes } from './native-calls.ts'
import type { BlobSaver, BlobWriter } from './repository.ts'
import type { Lane } from './saver-lane.ts'
import type { FromWorker } from './saver-protocol.ts'

/** Blocks that may be filled, wait or be worked at, for each worker. */
export const blocksPerWorker = 8

type Block = Buffer<SharedArrayBuffer>
type Saved = { readonly id: string; readonly said: unknown }
type Job = {
  readonly lane: Lane
  readonly block: Block
  readonly resolve: (saved: Saved) => void
  readonly reject: (error: unknown) => void
}
export type BlockOptions = NonNullable<Parameters<BlobSaver['writeBlocks']>[0]>

/** Memory for blocks, shared with the workers that make blobs of them, and used again and again. */
export class BlockPool {
  readonly #count: number
  readonly #lane: () => Lane
  readonly #check: () => void
  readonly #free: Block[] = []
  readonly #jobs = new Map<number, Job>()
  #made = 0
  #jobsBegun = 0
  #waiting: (() => void)[] = []

  constructor(options: {
    readonly count: number
    /** The worker that has the fewest of them. */
    readonly lane: () => Lane
    /** Throws when nothing more is taken. */
    readonly check: () => void
  }) {
    this.#count = options.count
    this.#lane = options.lane
    this.#check = options.check
  }

  get inFlight(): number {
    return this.#jobs.size
  }

  /** Memory of `blockBytes` if there is any. */
  tryTake(): Block | undefined {
    this.#check()
    const block = this.#free.pop()
    if (block || this.#made >= this.#count) return block
    this.#made += 1
    return Buffer.from(new SharedArrayBuffer(blockBytes))
  }

  async take(): Promise<Block> {
    for (;;) {
      const block = this.tryTake()
      if (block) return block
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }

  give(block: Block): void {
    this.#free.push(block)
    this.#waiting.shift()?.()
  }

  save(
    block: Block,
    size: number,
    offset: number,
    inspection: Inspection | undefined,
  ): Promise<Saved> {
    this.#check()
    const lane = this.#lane()
    const job = ++this.#jobsBegun
    const { promise, resolve, reject } = Promise.withResolvers<Saved>()
    this.#jobs.set(job, { lane, block, resolve, reject })
    lane.blocks += 1
    lane.post({ kind: 'block', job, bytes: block.buffer, size, offset, inspection })
    return promise
  }

  settle({ job, id, said }: Extract<FromWorker, { kind: 'saved' }>): void {
    const found = this.#jobs.get(job)
    if (!found) return
    this.#jobs.delete(job)
    found.lane.blocks -= 1
    this.give(found.block)
    found.resolve({ id, said })
  }

  fail(error: unknown): void {
    for (const job of this.#jobs.values()) job.reject(error)
    this.#jobs.clear()
    for (const wake of this.#waiting.splice(0)) wake()
  }
}

/** One file on its way into blocks. */
export class BlockFile implements BlobWriter {
  readonly #pool: BlockPool
  readonly #inspection: Inspection | undefined
  readonly #first: number
  readonly #saved: Promise<Saved>[] = []
  #offset: number
  #block: Block | undefined
  #size = 0
  #room = 0
  #failure: { readonly error: unknown } | undefined

  constructor(pool: BlockPool, { inspection, offset = 0 }: BlockOptions) {
    this.#pool = pool
    this.#inspection = inspection
    this.#first = offset
    this.#offset = offset
  }

  write(bytes: Buffer): Promise<void> | undefined {
    const at = this.#fill(bytes, 0)
    return at < bytes.length ? this.#writeRest(bytes, at) : undefined
  }

  /** Copies as much as there is memory for. */
  #fill(bytes: Buffer, from: number): number {
    let at = from
    while (at < bytes.length) {
      const block = (this.#block ??= this.#begin(this.#pool.tryTake()))
      if (!block) break
      const size = Math.min(this.#room - this.#size, bytes.length - at)
      copyBytes(block.subarray(this.#size, this.#size + size), bytes.subarray(at, at + size))
      this.#size += size
      at += size
      if (this.#size === this.#room) this.#send()
    }
    return at
  }

  // Waits with the caller's bytes at hand: they are the caller's again when the promise is settled.
  async #writeRest(bytes: Buffer, from: number): Promise<void> {
    for (let at = from; at < bytes.length; at = this.#fill(bytes, at)) {
      this.#block ??= this.#begin(await this.#pool.take())
    }
  }

  #begin(block: Block | undefined): Block | undefined {
    this.#size = 0
    this.#room = blockBytes - (this.#offset % blockBytes)
    return block
  }

  #send(): void {
    if (this.#failure) throw this.#failure.error
    const block = this.#block
    if (!block) return
    this.#block = undefined
    const saved = this.#pool.save(block, this.#size, this.#offset, this.#inspection)
    // Heard at the end of the file, or with the next block.
    saved.catch((error: unknown) => {
      this.#failure ??= { error }
    })
    this.#saved.push(saved)
    this.#offset += this.#size
  }

  async end(): Promise<Written & { readonly blobs: readonly string[] }> {
    this.#send()
    const saved = await Promise.all(this.#saved)
    return {
      sizeBytes: this.#offset - this.#first,
      said: saved.map(({ said }) => said),
      blobs: saved.map(({ id }) => id),
    }
  }
}
