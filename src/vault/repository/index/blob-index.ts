import { assert } from '#base/faults'
import { indexMemoryBlobsMax } from '../limits.ts'
import type { BlobPlace, BlobType, IndexedPack, PackedBlob } from '../repository.ts'
import { BlobTable, hexWords, idWords, pendingPack, wordsHex } from './blob-table.ts'
import { PackNames } from './pack-names.ts'

/** Room beyond the limit for what workers claim before the next spill. */
const headroom = 262_144

/** The places of all blobs of a repository, on the thread that owns it; workers share the table. */
export class BlobIndex {
  readonly table: BlobTable
  readonly #packs = new PackNames()

  constructor(memoryBlobsMax = indexMemoryBlobsMax) {
    this.table = new BlobTable({ capacity: memoryBlobsMax + headroom })
  }

  /** Blobs, duplicates counted. */
  get count(): number {
    return this.table.count
  }

  get sizeBytes(): number {
    return this.table.sizeBytes + this.#packs.sizeBytes
  }

  get packCount(): number {
    return this.#packs.count
  }

  hasPack(pack: string): boolean {
    return this.#packs.has(pack)
  }

  /** Enters a pack with all its blobs; a pack that is known already changes nothing. */
  addPack({ id, blobs }: IndexedPack): void {
    if (this.#packs.has(id)) return
    const pack = this.#packs.add(id)
    for (const blob of blobs) this.#addBlob(pack, blob)
  }

  #addBlob(pack: number, blob: PackedBlob): void {
    const words = hexWords(blob.id)
    const tree = blob.type === 'tree'
    const { offset, length, plainLength } = blob
    this.table.locked(() => {
      const record = this.table.findRecord(words, tree)
      if (record >= 0 && this.table.placeOf(record).pack === pendingPack) {
        this.table.setPlace(record, tree, { pack, offset, length, plainLength })
      } else {
        const added = this.table.add(words, tree, { pack, offset, length, plainLength })
        assert(added, 'the blob table has room')
      }
    })
  }

  find(type: BlobType, id: string): BlobPlace | undefined {
    return this.findAll(type, id).next().value ?? undefined
  }

  /** All places of a blob: more than one when it was stored twice. */
  *findAll(type: BlobType, id: string): Generator<BlobPlace, undefined> {
    const words = hexWords(id)
    const tree = type === 'tree'
    for (let record = -1; ; ) {
      record = this.table.locked(() => this.table.findRecord(words, tree, record))
      if (record < 0) return undefined
      const place = this.#placeOf(record)
      if (place) yield place
    }
  }

  #placeOf(record: number): BlobPlace | undefined {
    const { pack, offset, length, plainLength } = this.table.placeOf(record)
    if (pack === pendingPack) return undefined
    return { pack: this.#packs.nameOf(pack), offset, length, plainLength }
  }

  /** Every blob with its place, in no order. */
  *entries(): Generator<BlobPlace & { readonly id: string; readonly type: BlobType }> {
    const words = idWords(Buffer.alloc(32))
    for (let record = 0; record < this.table.count; record++) {
      const place = this.#placeOf(record)
      if (!place) continue
      this.table.idOf(record, words)
      yield { ...place, id: wordsHex(words), type: this.table.isTree(record) ? 'tree' : 'data' }
    }
  }

  clear(): void {
    this.table.locked(() => this.table.clear())
    this.#packs.clear()
  }
}
