import { isFault } from '#base/faults'
import { systemTime, type Time } from '#base/time'
import { IdSet } from './id-set.ts'
import { decodeIndex, encodeIndex } from './index/index-file.ts'
import { takeObject } from './json.ts'
import { indexFileBlobsMax } from './limits.ts'
import type { IndexedPack, Repository } from './repository.ts'

// A mark file has the form of an index file and a time: packs that left the index, with what they hold. They are
// deleted by a prune that comes after the grace period and still finds nothing that needs them; until then any
// prune can take them back. Stock restic does not look at the folder.

export type Mark = {
  readonly id: string
  /** When it was written, by the store's clock and by that of the machine that wrote it. */
  readonly storedMs: number
  readonly writtenMs: number
  /** Ids of the packs. */
  readonly packs: readonly string[]
}

type Options = { readonly signal: AbortSignal }

/** All marks; throws when one cannot be read, since what it protects is then unknown. */
export async function loadMarks(
  repository: Repository,
  options: Options,
): Promise<readonly Mark[]> {
  const marks: Mark[] = []
  for (const file of await repository.listFiles('marks', options)) {
    const json = await repository.loadJson('marks', file, options)
    const marked = takeObject(json, `mark ${file.id}`)['marked']
    marks.push({
      id: file.id,
      storedMs: file.modifiedMs,
      writtenMs: typeof marked === 'string' ? Date.parse(marked) : Number.NaN,
      packs: decodeIndex(json, `mark ${file.id}`).map(({ id }) => id),
    })
  }
  return marks
}

/** What the packs of a mark hold. */
export async function loadMarkedPacks(
  repository: Repository,
  mark: Mark,
  options: Options,
): Promise<readonly IndexedPack[]> {
  const json = await repository.loadJson('marks', { id: mark.id }, options)
  return decodeIndex(json, `mark ${mark.id}`)
}

export async function removeMark(
  { storage }: Repository,
  { id }: Mark,
  options: Options,
): Promise<void> {
  await storage.delete(`marks/${id}`, options)
}

/** Gathers packs on their way out, and writes a mark file whenever enough came together. */
export class MarkWriter {
  readonly #repository: Repository
  readonly #options: Options & { readonly time?: Time | undefined }
  readonly #seen = new IdSet()
  readonly #marks: Mark[] = []
  #packs: IndexedPack[] = []
  #blobs = 0

  constructor(repository: Repository, options: Options & { readonly time?: Time | undefined }) {
    this.#repository = repository
    this.#options = options
  }

  async add(pack: IndexedPack): Promise<void> {
    if (!this.#seen.add(pack.id)) return
    this.#packs.push(pack)
    this.#blobs += pack.blobs.length + 1
    if (this.#blobs >= indexFileBlobsMax) await this.#write()
  }

  /** Writes what is left; returns all marks written. */
  async finish(): Promise<readonly Mark[]> {
    await this.#write()
    return this.#marks
  }

  async #write(): Promise<void> {
    if (this.#packs.length === 0) return
    const { signal, time = systemTime } = this.#options
    const writtenMs = time.now()
    const marked = new Date(writtenMs).toISOString()
    const text = `{"marked":"${marked}",${encodeIndex(this.#packs).slice(1)}`
    const id = await this.#repository.saveJson('marks', text, { signal })
    this.#marks.push({
      id,
      storedMs: writtenMs,
      writtenMs,
      packs: this.#packs.map((pack) => pack.id),
    })
    this.#packs = []
    this.#blobs = 0
  }
}

/** What a stored pack that no index lists holds; nothing when it is the rest of an interrupted upload. */
export async function readUnindexed(
  repository: Repository,
  id: string,
  sizeBytes: number,
  options: Options,
): Promise<IndexedPack | undefined> {
  try {
    return { id, blobs: await repository.readPackHeader(id, sizeBytes, options) }
  } catch (error) {
    if (isFault(error, 'corrupt')) return { id, blobs: [] }
    if (isFault(error, 'missing')) return undefined
    throw error
  }
}
