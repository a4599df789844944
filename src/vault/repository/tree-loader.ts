import { Fault, isFault } from '#base/faults'
import { packKey } from './pack.ts'
import type { BlobPlace, Repository } from './repository.ts'
import { decodeTree } from './tree-decoder.ts'

/** Whole packs that are kept at hand, and the size above which none is. */
const packsMax = 3
const packBytesMax = 32 * 1024 * 1024
/** Trees that are fetched one by one from a pack before all of it is. */
const singlesMax = 3

/**
 * Loads tree blobs for walks: trees that belong together were stored in one pack, so that a walk of a large
 * tree costs a request a pack, and a look at one directory costs no whole pack.
 */
export class TreeLoader {
  readonly #repository: Repository
  /** In the order of last use. */
  readonly #packs = new Map<string, Buffer>()
  readonly #singles = new Map<string, number>()

  constructor(repository: Repository) {
    this.#repository = repository
  }

  async load(id: string, signal: AbortSignal): Promise<Buffer> {
    const place = this.#repository.find('tree', id)
    if (!place) throw new Fault('missing', `read tree ${id}: no index lists it`)
    const pack = this.#packs.get(place.pack) ?? (await this.#fetch(place, signal))
    if (!pack) return this.#repository.loadBlob('tree', id, { signal })
    const envelope = pack.subarray(place.offset, place.offset + place.length)
    try {
      return this.#repository.openBlob(
        { id, type: 'tree', plainLength: place.plainLength },
        envelope,
      )
    } catch (error) {
      if (!isFault(error, 'corrupt')) throw error
      // Another read, or another copy, may do; if not, this names the pack.
      return this.#repository.loadBlob('tree', id, { signal })
    }
  }

  async #fetch(place: BlobPlace, signal: AbortSignal): Promise<Buffer | undefined> {
    const singles = (this.#singles.get(place.pack) ?? 0) + 1
    this.#singles.set(place.pack, singles)
    if (singles <= singlesMax) return undefined
    const { storage } = this.#repository
    const facts = await storage.stat(packKey(place.pack), { signal })
    if (!facts || facts.sizeBytes > packBytesMax) return undefined
    const bytes = await storage.get(packKey(place.pack), { signal })
    this.#packs.set(place.pack, bytes)
    const [oldest] = this.#packs.keys()
    if (this.#packs.size > packsMax && oldest !== undefined) this.#packs.delete(oldest)
    return bytes
  }
}

/** The tree of a directory within a tree, by its path; throws `missing`, or `usage` when it is no directory. */
export async function resolveTree(
  repository: Repository,
  tree: string,
  path: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<string> {
  let at = tree
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  for (const [index, part] of parts.entries()) {
    const bytes = await repository.loadBlob('tree', at, { signal })
    const name = Buffer.from(part)
    const node = decodeTree(bytes, `tree ${at}`).find((each) => each.name.equals(name))
    const shown = `/${parts.slice(0, index + 1).join('/')}`
    if (!node) throw new Fault('missing', `find ${shown} in the snapshot: it is not there`)
    if (!node.subtree)
      throw new Fault('usage', `find ${shown} in the snapshot: it is no directory`, {
        hint: 'Name a directory, and choose files in it with --include.',
      })
    at = node.subtree
  }
  return at
}
