import { headerEntryBytes, packSizeBytes } from './pack.ts'
import type { PackUse } from './prune-plan.ts'
import type { BlobType, Repository } from './repository.ts'
import type { UsedBlobs } from './tree-usage.ts'

/** Where a blob that was stored more than once is kept; its other places count as unused. */
export type Keepers = ReadonlyMap<string, string>

function nameOf(type: BlobType, id: string): string {
  return `${type} ${id}`
}

function isUsed(used: UsedBlobs, type: BlobType, id: string): boolean {
  return (type === 'tree' ? used.trees : used.data).has(id)
}

/** Whether a blob is needed from this very pack. */
export function isKept(
  used: UsedBlobs,
  keepers: Keepers,
  pack: string,
  { type, id }: { readonly type: BlobType; readonly id: string },
): boolean {
  if (!isUsed(used, type, id)) return false
  return keepers.size === 0 || (keepers.get(nameOf(type, id)) ?? pack) === pack
}

/** A pack as the index has it, with the size that it must have. */
export type MeasuredPack = PackUse & { readonly packBytes: number }

export type Use = {
  readonly packs: ReadonlyMap<string, MeasuredPack>
  readonly keepers: Keepers
}

/** What is needed of each indexed pack. */
export function measureUse(repository: Pick<Repository, 'blobs'>, used: UsedBlobs): Use {
  const twice = findDuplicates(repository, used)
  const keepers = twice.size === 0 ? noKeepers : chooseKeepers(repository, used, twice)
  return { packs: measurePacks(repository, used, keepers), keepers }
}

const noKeepers: Keepers = new Map()

/** Needed blobs that are stored more than once: few, unless a prune was cut short. */
function findDuplicates(repository: Pick<Repository, 'blobs'>, used: UsedBlobs): Set<string> {
  const seen = {
    tree: new Uint8Array(used.trees.count),
    data: new Uint8Array(used.data.count),
  }
  const twice = new Set<string>()
  for (const { type, id } of repository.blobs()) {
    const number = (type === 'tree' ? used.trees : used.data).numberOf(id)
    if (number < 0) continue
    if (seen[type][number] === 1) twice.add(nameOf(type, id))
    seen[type][number] = 1
  }
  return twice
}

/** Of several places of a needed blob the one is kept whose pack is needed most for other reasons. */
function chooseKeepers(
  repository: Pick<Repository, 'blobs'>,
  used: UsedBlobs,
  twice: ReadonlySet<string>,
): Keepers {
  const places = new Map([...twice].map((name) => [name, [] as string[]]))
  const weight = new Map<string, number>()
  for (const { type, id, pack, length } of repository.blobs()) {
    const copies = places.get(nameOf(type, id))
    if (copies) copies.push(pack)
    else if (isUsed(used, type, id)) weight.set(pack, (weight.get(pack) ?? 0) + length)
  }
  const heavierFirst = (a: string, b: string) =>
    (weight.get(b) ?? 0) - (weight.get(a) ?? 0) || (a < b ? -1 : 1)
  return new Map([...places].map(([name, packs]) => [name, packs.toSorted(heavierFirst)[0] ?? '']))
}

function measurePacks(
  repository: Pick<Repository, 'blobs'>,
  used: UsedBlobs,
  keepers: Keepers,
): ReadonlyMap<string, MeasuredPack> {
  const uses = new Map<string, { -readonly [field in keyof MeasuredPack]: MeasuredPack[field] }>()
  for (const blob of repository.blobs()) {
    const { pack: id, type, length, plainLength } = blob
    const use = uses.get(id) ?? {
      id,
      usedBytes: 0,
      unusedBytes: 0,
      blobCount: 0,
      holdsTrees: false,
      holdsData: false,
      isUncompressed: false,
      packBytes: packSizeBytes([]),
    }
    uses.set(id, use)
    const kept = isKept(used, keepers, id, blob)
    use[kept ? 'usedBytes' : 'unusedBytes'] += length
    use.blobCount += 1
    use.packBytes += length + headerEntryBytes(plainLength)
    if (type === 'tree') use.holdsTrees = true
    else use.holdsData = true
    if (plainLength === 0 && kept) use.isUncompressed = true
  }
  return uses
}
