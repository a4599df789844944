import type { Progress } from '#base/progress'
import type { Time } from '#base/time'
import { passes, type SnapshotFilter } from './forget.ts'
import { IdSet } from './id-set.ts'
import { loadMarks } from './marks.ts'
import { plainBytesOf } from './pack.ts'
import { listPacks } from './pack-list.ts'
import type { BlobType, Repository, Snapshot } from './repository.ts'
import { findUsedBlobs } from './tree-usage.ts'
import { decodeTree } from './tree-decoder.ts'
import { TreeLoader } from './tree-loader.ts'

export type StatsOptions = {
  readonly signal: AbortSignal
  /** Snapshots that are counted; all of them by default. */
  readonly filter?: SnapshotFilter | undefined
  readonly progress?: Progress | undefined
  readonly time?: Time | undefined
}

export type RepositoryStats = {
  readonly snapshots: number
  /** Nodes of all kinds, and bytes of files, that restoring each of the snapshots would lay out. */
  readonly restoreNodes: number
  readonly restoreBytes: number
  /** Blobs that the snapshots need, each once. */
  readonly dataBlobs: number
  readonly treeBlobs: number
  /** Their bytes unpacked, and as they are stored. */
  readonly plainBytes: number
  readonly storedBytes: number
  /** How often the plain bytes of the needed blobs fit into the stored ones; 1 where there are none. */
  readonly compressionRatio: number
  /** How often the bytes that could be restored fit into the plain ones. */
  readonly deduplicationRatio: number
  /** All that is stored, needed or not. */
  readonly packs: number
  readonly packsBytes: number
  readonly indexFiles: number
  /** Packs on their way out. */
  readonly markedPacks: number
}

/** Counts what a repository holds and what it saves. Reads all trees of the snapshots. Holds a shared lock. */
export async function measureRepository(
  repository: Repository,
  options: StatsOptions,
): Promise<RepositoryStats> {
  await using lock = await repository.lock('shared', { ...options, readOnly: true })
  const { signal } = lock
  const { filter = {}, progress } = options
  const snapshots = (await repository.snapshots({ signal })).filter((one) => passes(one, filter))
  await repository.loadIndex({ signal })
  const roots = snapshots.map(({ tree }) => tree)
  if (progress) progress.phase = 'read trees'
  const used = await findUsedBlobs(repository, roots, {
    signal,
    onTree: () => {
      if (progress) progress.doneItems += 1
    },
  })
  const trees = measureBlobs(repository, 'tree', used.trees)
  const data = measureBlobs(repository, 'data', used.data)
  const restored = await measureRestores(repository, snapshots, { signal, progress })
  const packs = await listPacks(repository, { signal })
  const marks = await loadMarks(repository, { signal })
  const plainBytes = trees.plainBytes + data.plainBytes
  const storedBytes = trees.storedBytes + data.storedBytes
  return {
    snapshots: snapshots.length,
    restoreNodes: restored.nodes,
    restoreBytes: restored.sizeBytes,
    dataBlobs: used.data.count,
    treeBlobs: used.trees.count,
    plainBytes,
    storedBytes,
    compressionRatio: storedBytes === 0 ? 1 : plainBytes / storedBytes,
    deduplicationRatio: data.plainBytes === 0 ? 1 : restored.sizeBytes / data.plainBytes,
    packs: packs.size,
    packsBytes: [...packs.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0),
    indexFiles: (await repository.listFiles('index', { signal })).length,
    markedPacks: new Set(marks.flatMap((mark) => mark.packs)).size,
  }
}

function measureBlobs(repository: Repository, type: BlobType, ids: IdSet) {
  let plainBytes = 0
  let storedBytes = 0
  for (const id of ids) {
    const place = repository.find(type, id)
    if (!place) continue
    plainBytes += plainBytesOf(place)
    storedBytes += place.length
  }
  return { plainBytes, storedBytes }
}

type Size = { readonly nodes: number; readonly sizeBytes: number }

/** Files of more than one name count once in a snapshot; the sizes of trees without such are remembered. */
async function measureRestores(
  repository: Repository,
  snapshots: readonly Snapshot[],
  { signal, progress }: { readonly signal: AbortSignal; readonly progress: Progress | undefined },
): Promise<Size> {
  const trees = new TreeLoader(repository)
  const known = new TreeSizes()
  const total = { nodes: 0, sizeBytes: 0 }
  if (progress) {
    progress.phase = 'measure snapshots'
    progress.doneItems = 0
    progress.totalItems = snapshots.length
  }
  for (const { tree } of snapshots) {
    const linked = new Set<string>()
    const measure = async (id: string): Promise<Size & { readonly hasLinks: boolean }> => {
      const remembered = known.find(id)
      if (remembered) return { ...remembered, hasLinks: false }
      const sum = { nodes: 0, sizeBytes: 0, hasLinks: false }
      const below: string[] = []
      for (const node of decodeTree(await trees.load(id, signal), `tree ${id}`)) {
        sum.nodes += 1
        if (node.subtree !== undefined) below.push(node.subtree)
        if (node.kind !== 'file') continue
        const name = node.links > 1 ? `${node.device} ${node.inode}` : undefined
        if (name !== undefined) sum.hasLinks = true
        if (name === undefined || !linked.has(name)) sum.sizeBytes += Number(node.sizeBytes)
        if (name !== undefined) linked.add(name)
      }
      for (const subtree of below) {
        const inner = await measure(subtree)
        sum.nodes += inner.nodes
        sum.sizeBytes += inner.sizeBytes
        sum.hasLinks ||= inner.hasLinks
      }
      if (!sum.hasLinks) known.add(id, sum)
      return sum
    }
    const { nodes, sizeBytes } = await measure(tree)
    total.nodes += nodes
    total.sizeBytes += sizeBytes
    if (progress) progress.doneItems += 1
  }
  return total
}

/** What lies below trees, in some 60 bytes a tree. */
class TreeSizes {
  readonly #ids = new IdSet()
  #nodes = new Float64Array(256)
  #bytes = new Float64Array(256)

  find(id: string): Size | undefined {
    const number = this.#ids.numberOf(id)
    if (number < 0) return undefined
    return { nodes: this.#nodes[number] ?? 0, sizeBytes: this.#bytes[number] ?? 0 }
  }

  add(id: string, { nodes, sizeBytes }: Size): void {
    const number = this.#ids.count
    if (!this.#ids.add(id)) return
    if (number >= this.#nodes.length) {
      this.#nodes = doubled(this.#nodes)
      this.#bytes = doubled(this.#bytes)
    }
    this.#nodes[number] = nodes
    this.#bytes[number] = sizeBytes
  }
}

function doubled(old: Float64Array): Float64Array<ArrayBuffer> {
  const grown = new Float64Array(old.length * 2)
  grown.set(old)
  return grown
}
