import type { Time } from '#base/time'
import { indexFileAgeMaxMs, indexFileBlobsMax } from '../limits.ts'
import type { IndexedPack } from '../repository.ts'
import { encodeIndex } from './index-file.ts'

/** Gathers stored packs, and writes an index file whenever enough came together or enough time passed. */
export class IndexWriter {
  readonly #save: (text: string) => Promise<void>
  readonly #time: Time
  #packs: IndexedPack[] = []
  #blobs = 0
  #begunMs = 0

  constructor(save: (text: string) => Promise<void>, time: Time) {
    this.#save = save
    this.#time = time
  }

  /** Called after the pack is stored. */
  async add(pack: IndexedPack): Promise<void> {
    if (this.#packs.length === 0) this.#begunMs = this.#time.monotonicMs()
    this.#packs.push(pack)
    this.#blobs += pack.blobs.length
    const ageMs = this.#time.monotonicMs() - this.#begunMs
    if (this.#blobs >= indexFileBlobsMax || ageMs >= indexFileAgeMaxMs) await this.flush()
  }

  async flush(): Promise<void> {
    const packs = this.#packs
    if (packs.length === 0) return
    this.#packs = []
    this.#blobs = 0
    await this.#save(encodeIndex(packs))
  }
}
