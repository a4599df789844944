import { hash } from 'node:crypto'
import { Fault, isFault } from '#base/faults'
import type { Progress } from '#base/progress'
import { eachLimit } from '#base/tasks'
import type { HeldFile, Prepared, TreeTarget } from '#change/tree'
import { envelopeOverheadBytes } from './crypto.ts'
import type { BlobPlacing, Repository } from './repository.ts'
import type { TreeNode } from './tree-codec.ts'

/** Files whose present bytes are compared at the same time. */
const comparingMax = 4
/** After damage was met, blobs are fetched in groups so small, then one by one. */
const groupMax = 256
/** Files held open for other threads at a time; those of one blob count each. */
const heldMax = 256

/** A file whose bytes are to be brought in place. */
export type WaveFile = {
  readonly path: Buffer
  readonly node: TreeNode
  readonly prepared: Prepared
  /** Offsets of the chunks that were not there already; undefined for a file that was made. */
  differing: Set<number> | undefined
  /** Its bytes could not be had: what is there must not pass for the file. */
  damaged: boolean
}

type Piece = { readonly id: string; readonly offset: number; readonly sizeBytes: number }
type Use = { readonly file: WaveFile; readonly offset: number }

export type WaveOptions = {
  readonly signal: AbortSignal
  readonly progress?: Progress | undefined
  readonly dryRun?: boolean | undefined
  readonly verify?: boolean | undefined
  readonly width?: number | undefined
  readonly onDamage: (path: Buffer, said: string) => void
}

export type Filled = {
  /** Files that held all their bytes already, and all bytes that were found in place. */
  readonly kept: { readonly files: number; readonly bytes: bigint }
  /** Bytes that were written, or would be in a dry run. */
  readonly differing: bigint
}

/**
 * Brings the bytes of prepared files in place, many files at a time: compares what is there, fetches each
 * chunk that is missing anywhere once, pack by pack, and writes it wherever it belongs. Chunks arrive compared
 * with their hashes. A file that the vault cannot give is marked as damaged, and the others are filled.
 */
export class WaveBytes {
  readonly #repository: Repository
  readonly #target: TreeTarget
  readonly #options: WaveOptions
  #held = 0

  constructor(repository: Repository, target: TreeTarget, options: WaveOptions) {
    this.#repository = repository
    this.#target = target
    this.#options = options
  }

  async fill(files: readonly WaveFile[]): Promise<Filled> {
    const { signal, dryRun = false, verify = false } = this.#options
    const kept = { files: 0, bytes: 0n }
    const present = files.filter((file) => file.prepared === 'present')
    await eachLimit(present, comparingMax, signal, (file) => this.#compare(file, kept))
    const { needed, sizeBytes } = this.#plan(files)
    if (!dryRun) await this.#fetch(needed)
    if (!dryRun && verify)
      await eachLimit(files, comparingMax, signal, (file) => this.#verify(file))
    return { kept, differing: sizeBytes }
  }

  *#pieces(file: WaveFile): Generator<Piece, void, void> {
    let offset = 0
    for (const id of file.node.content ?? []) {
      const place = this.#repository.find('data', id)
      if (!place) {
        this.#damageFile(file, `no index lists its blob ${id}`)
        return
      }
      const sizeBytes = place.plainLength || place.length - envelopeOverheadBytes
      yield { id, offset, sizeBytes }
      offset += sizeBytes
    }
    const { node } = file
    if (node.kind === 'file' && BigInt(offset) !== node.sizeBytes)
      this.#damageFile(file, `its chunks hold ${offset} bytes instead of ${node.sizeBytes}`)
  }

  /** Notes where a file that was there differs. */
  async #compare(file: WaveFile, kept: { files: number; bytes: bigint }): Promise<void> {
    const differing = new Set<number>()
    let held = 0
    for (const piece of this.#pieces(file)) {
      this.#options.signal.throwIfAborted()
      if (await this.#holds(file, piece)) held += piece.sizeBytes
      else differing.add(piece.offset)
    }
    file.differing = differing
    if (differing.size === 0) kept.files += 1
    kept.bytes += BigInt(held)
    if (this.#options.progress) this.#options.progress.doneBytes += held
  }

  async #holds(file: WaveFile, { id, offset, sizeBytes }: Piece): Promise<boolean> {
    const bytes = await this.#target.read(file.path, offset, sizeBytes)
    return bytes.length === sizeBytes && hash('sha256', bytes, 'hex') === id
  }

  /** Where each blob goes that is to be fetched. */
  #plan(files: readonly WaveFile[]) {
    let total = 0n
    const needed = new Map<string, Use[]>()
    for (const file of files) {
      if (file.prepared === 'same') continue
      for (const { id, offset, sizeBytes } of this.#pieces(file)) {
        if (file.differing && !file.differing.has(offset)) continue
        total += BigInt(sizeBytes)
        const uses = needed.get(id)
        if (uses) uses.push({ file, offset })
        else needed.set(id, [{ file, offset }])
      }
    }
    return { needed, sizeBytes: total }
  }

  async #fetch(needed: Map<string, Use[]>): Promise<void> {
    const { signal, width } = this.#options
    const place = async (id: string, plain: Buffer) => {
      for (const use of needed.get(id) ?? []) await this.#write(use, plain)
      needed.delete(id)
    }
    const hold = (id: string) =>
      this.#hold(needed.get(id) ?? [], () => {
        needed.delete(id)
      })
    const load = async (ids: string[]): Promise<boolean> => {
      try {
        const options = { signal, width, isTransient: true, place: hold }
        await this.#repository.loadBlobs(ids, options, place)
        return true
      } catch (error) {
        if (!isFault(error, 'corrupt', 'missing')) throw error
        return false
      }
    }
    if (needed.size === 0 || (await load([...needed.keys()]))) return
    // Something is damaged: what is whole is brought home in smaller and smaller portions.
    const left = [...needed.keys()]
    for (let at = 0; at < left.length; at += groupMax) {
      const group = left.slice(at, at + groupMax).filter((id) => needed.has(id))
      if (group.length > 0 && !(await load(group)))
        for (const id of group.filter((each) => needed.has(each)))
          await this.#single(id, needed, place)
    }
  }

  async #single(
    id: string,
    needed: Map<string, Use[]>,
    place: (id: string, plain: Buffer) => Promise<void>,
  ): Promise<void> {
    const loaded = await this.#loadOrDamage(id, needed.get(id) ?? [])
    if (loaded) await place(id, loaded)
  }

  async #loadOrDamage(id: string, uses: readonly Use[]): Promise<Buffer | undefined> {
    try {
      return await this.#repository.loadBlob('data', id, { signal: this.#options.signal })
    } catch (error) {
      if (!isFault(error, 'corrupt', 'missing')) throw error
      for (const { file } of uses) this.#damageFile(file, error.message)
      return undefined
    }
  }

  /** Files for another thread to write a blob to, unless they are many or one of them cannot be written that way. */
  #hold(uses: readonly Use[], done: () => void): BlobPlacing | undefined {
    const { progress } = this.#options
    if (uses.length === 0 || this.#held + uses.length > heldMax) return undefined
    const held: HeldFile[] = []
    const release = () => {
      this.#held -= held.length
      for (const file of held.splice(0)) file.release()
    }
    for (const { file } of uses) {
      const one = this.#target.hold?.(file.path)
      if (!one) {
        release()
        return undefined
      }
      held.push(one)
      this.#held += 1
    }
    const written = (sizeBytes: number) => {
      done()
      if (progress) progress.doneBytes += sizeBytes * uses.length
    }
    const places = uses.map(({ offset }, at) => ({
      descriptor: held[at]?.descriptor ?? -1,
      offset,
    }))
    const fault = (index: number, error: unknown) => held[index]?.fault(error) ?? error
    return { places, written, fault, release }
  }

  async #write({ file, offset }: Use, plain: Buffer): Promise<void> {
    if (isZero(plain)) await this.#target.zero(file.path, offset, plain.length)
    else await this.#target.write(file.path, offset, plain)
    if (this.#options.progress) this.#options.progress.doneBytes += plain.length
  }

  async #verify(file: WaveFile): Promise<void> {
    if (file.damaged) return
    for (const piece of this.#pieces(file)) {
      this.#options.signal.throwIfAborted()
      if (await this.#holds(file, piece)) continue
      throw new Fault(
        'io',
        `verify ${file.path.toString()}: the disk gives other bytes at ${piece.offset} than were written`,
        { hint: 'The target disk is not to be trusted, or something else writes to the file.' },
      )
    }
  }

  #damageFile(file: WaveFile, said: string): void {
    if (file.damaged) return
    file.damaged = true
    this.#options.onDamage(file.path, said)
  }
}

const zeroes = Buffer.alloc(64 * 1024)

function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += zeroes.length) {
    const piece = bytes.subarray(at, at + zeroes.length)
    if (!piece.equals(zeroes.subarray(0, piece.length))) return false
  }
  return true
}
