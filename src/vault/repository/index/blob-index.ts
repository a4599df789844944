import { assert } from '#base/faults'
import { takeId } from '../blob-id.ts'
import { parseJson } from '../json.ts'
import { indexMemoryBlobsMax } from '../limits.ts'
import type { BlobPlace, BlobType, IndexedPack } from '../repository.ts'
import { BlobTable, hexWords, idWords, pendingPack, wordsHex, type Place } from './blob-table.ts'
import { decodeIndex } from './index-file.ts'
import { scanIndex, type IndexVisitor } from './index-scan.kernel.ts'
import { PackNames } from './pack-names.ts'
import { idWordCount, packWord, treeBit } from './record.ts'
import { placeAt } from './run-files.ts'

/** Room beyond the limit for what workers claim before the next spill. */
const headroom = 262_144

/** The places of all blobs of a repository, on the thread that owns it; workers share the table. */
export class BlobIndex {
  readonly table: BlobTable
  readonly #packs = new PackNames()

  readonly #memoryBlobsMax: number
  /** The id that is asked for, as bytes and as words. */
  readonly #asked = Buffer.alloc(32)
  readonly #askedWords = idWords(this.#asked)

  constructor(memoryBlobsMax = indexMemoryBlobsMax) {
    this.#memoryBlobsMax = memoryBlobsMax
    this.table = new BlobTable({ capacity: memoryBlobsMax + headroom })
  }

  /** Blobs, duplicates counted. */
  get count(): number {
    return this.table.count + this.table.runs.count
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
    this.table.locked(() => {
      for (const { id: blob, type, offset, length, plainLength } of blobs) {
        this.#addBlob(hexWords(blob), type === 'tree', { pack, offset, length, plainLength })
      }
    })
  }

  /**
   * Enters what an index file lists; throws `corrupt`, and enters nothing, when it is malformed. The two ways of
   * reading agree; the general one serves what other programs may have written.
   */
  addFile(plain: Buffer, what: string): void {
    if (!scanIndex(plain)) {
      for (const pack of decodeIndex(parseJson(plain.toString(), what), what)) this.addPack(pack)
      return
    }
    let pack = -1
    const visitor: IndexVisitor = {
      pack: (id) => {
        const name = Buffer.from(id).toString('hex')
        pack = this.#packs.has(name) ? -1 : this.#packs.add(name)
      },
      blob: (id, isTree, offset, length, plainLength) => {
        if (pack < 0) return
        this.#addBlob(idWords(id), isTree, { pack, offset, length, plainLength })
      },
    }
    // One turn for the whole file: some fifty milliseconds, in which a worker may have to wait.
    this.table.locked(() => scanIndex(plain, visitor))
  }

  // The caller holds the lock of the table.
  #addBlob(id: Uint32Array, isTree: boolean, place: Place): void {
    if (this.table.count >= this.#memoryBlobsMax) this.table.spill()
    const record = this.table.findRecord(id, isTree)
    if (record >= 0 && this.table.placeOf(record).pack === pendingPack) {
      this.table.setPlace(record, isTree, place)
    } else {
      assert(this.table.add(id, isTree, place), 'the blob table has room')
    }
  }

  /** Whether there is any place of the blob: asked for every chunk of every file, so without making objects. */
  has(type: BlobType, id: string): boolean {
    takeId(id, 'id of a blob')
    this.#asked.write(id, 'hex')
    const tree = type === 'tree'
    const words = this.#askedWords
    return this.#firstStored(words, tree) >= 0 || !this.table.runs.find(words, tree).next().done
  }

  find(type: BlobType, id: string): BlobPlace | undefined {
    const words = hexWords(id)
    const tree = type === 'tree'
    const record = this.#firstStored(words, tree)
    const place =
      record >= 0 ? this.table.placeOf(record) : this.table.runs.find(words, tree).next().value
    return place && this.#named(place)
  }

  /** The first record of the blob that is not only claimed; -1 when there is none. */
  #firstStored(words: Uint32Array, tree: boolean): number {
    let record = -1
    do record = this.table.locked(() => this.table.findRecord(words, tree, record))
    while (record >= 0 && this.table.placeOf(record).pack === pendingPack)
    return record
  }

  /** All places of a blob: more than one when it was stored twice. */
  *findAll(type: BlobType, id: string): Generator<BlobPlace, undefined> {
    const words = hexWords(id)
    const tree = type === 'tree'
    for (let record = -1; ; ) {
      record = this.table.locked(() => this.table.findRecord(words, tree, record))
      if (record < 0) break
      const place = this.table.placeOf(record)
      if (place.pack !== pendingPack) yield this.#named(place)
    }
    for (const place of this.table.runs.find(words, tree)) yield this.#named(place)
    return undefined
  }

  #named({ pack, offset, length, plainLength }: Place): BlobPlace {
    return { pack: this.#packs.nameOf(pack), offset, length, plainLength }
  }

  /** Every blob with its place, in no order. */
  *entries(): Generator<BlobPlace & { readonly id: string; readonly type: BlobType }> {
    const words = idWords(Buffer.alloc(32))
    for (let record = 0; record < this.table.count; record++) {
      const place = this.table.placeOf(record)
      if (place.pack === pendingPack) continue
      this.table.idOf(record, words)
      yield this.#entry(words, this.table.isTree(record), place)
    }
    for (const { words: page, at } of this.table.runs.records()) {
      const isTree = ((page[at + packWord] ?? 0) & treeBit) !== 0
      yield this.#entry(page.subarray(at, at + idWordCount), isTree, placeAt(page, at))
    }
  }

  #entry(id: Uint32Array, isTree: boolean, place: Place) {
    const type: BlobType = isTree ? 'tree' : 'data'
    return { ...this.#named(place), id: wordsHex(id), type }
  }

  clear(): void {
    this.table.locked(() => this.table.clear())
    this.#packs.clear()
  }
}
