import { createHash } from 'node:crypto'
import { Fault, isFault } from '#base/faults'
import { parseSizeBytes } from '#base/bytes'
import { packKey } from './pack.ts'
import { type PackDamage, PackProof, provePack } from './pack-proof.ts'
import type { PackProver } from './pack-prover.ts'
import type { IndexedPack, Repository } from './repository.ts'

/** Which packs to read: `n/t` the n-th of t parts, a share, or so many bytes chosen at random. */
export type DataSubset =
  | { readonly kind: 'all' }
  | { readonly kind: 'part'; readonly part: number; readonly parts: number }
  | { readonly kind: 'percent'; readonly percent: number }
  | { readonly kind: 'size'; readonly sizeBytes: number }

const partsMax = 256

/** Reads `1/5`, `2.5%` or `500M`. */
export function parseSubset(text: string): DataSubset {
  const part = /^(\d{1,3})\/(\d{1,3})$/.exec(text)
  if (part) {
    const [n, t] = [Number(part[1]), Number(part[2])]
    if (n >= 1 && n <= t && t <= partsMax) return { kind: 'part', part: n, parts: t }
  } else if (/^\d+(\.\d+)?%$/.test(text)) {
    const percent = Number(text.slice(0, -1))
    if (percent > 0 && percent <= 100) return { kind: 'percent', percent }
  } else {
    const sizeBytes = parseSizeBytes(text)
    if (sizeBytes !== undefined && sizeBytes > 0) return { kind: 'size', sizeBytes }
  }
  throw new Fault('usage', `read --read-data-subset '${text}': it is no subset`, {
    hint: `Give n/t with t up to ${partsMax}, a percentage such as 2.5%, or a size such as 500M.`,
  })
}

/** Chooses the packs of a subset; at least one, where there is any. */
export function choosePacks(
  packs: ReadonlyMap<string, number>,
  subset: DataSubset,
  random: () => number,
): ReadonlySet<string> {
  const ids = [...packs.keys()].sort()
  switch (subset.kind) {
    case 'all':
      return new Set(ids)
    case 'part': {
      // By the first byte of the id, as restic does it: the parts of a week make up the whole.
      const firstByte = (id: string) => Number.parseInt(id.slice(0, 2), 16)
      return new Set(ids.filter((id) => firstByte(id) % subset.parts === subset.part - 1))
    }
    case 'percent':
      return new Set(shuffle(ids, random).slice(0, Math.ceil((ids.length * subset.percent) / 100)))
    case 'size': {
      const chosen = new Set<string>()
      let left = subset.sizeBytes
      for (const id of shuffle(ids, random)) {
        if (left <= 0) break
        chosen.add(id)
        left -= packs.get(id) ?? 0
      }
      return chosen
    }
  }
}

function shuffle(list: readonly string[], random: () => number): string[] {
  const shuffled = [...list]
  for (let last = shuffled.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    const kept = shuffled[last] ?? ''
    shuffled[last] = shuffled[other] ?? ''
    shuffled[other] = kept
  }
  return shuffled
}

/** Packs up to this size are read at once; larger ones, which hold one huge blob, piece by piece. */
const wholeBytesMax = 64 * 1024 * 1024

type StoredPack = IndexedPack & { readonly sizeBytes: number }

/**
 * Reads a pack and proves all of it. What fails is read a second time, since it may have been the transfer.
 * Undefined when the pack is sound. `prover` takes the work to other threads.
 */
export async function checkPackData(
  repository: Repository,
  pack: StoredPack,
  options: { readonly signal: AbortSignal; readonly prover?: PackProver | undefined },
): Promise<PackDamage | undefined> {
  const first = await readPack(repository, pack, options)
  return first && (await readPack(repository, pack, options))
}

async function readPack(
  repository: Repository,
  pack: StoredPack,
  options: { readonly signal: AbortSignal; readonly prover?: PackProver | undefined },
): Promise<PackDamage | undefined> {
  try {
    if (pack.sizeBytes > wholeBytesMax) return await readInPieces(repository, pack, options)
    const bytes = await repository.storage.get(packKey(pack.id), { signal: options.signal })
    const { id, blobs } = pack
    return options.prover
      ? await options.prover.prove({ id, blobs }, bytes)
      : provePack(repository, pack, bytes)
  } catch (error) {
    if (!isFault(error, 'corrupt', 'missing')) throw error
    const proof = new PackProof(pack)
    proof.lost(error)
    return proof.damage()
  }
}

async function readInPieces(
  repository: Repository,
  pack: StoredPack,
  { signal }: { readonly signal: AbortSignal },
): Promise<PackDamage | undefined> {
  const { storage } = repository
  const key = packKey(pack.id)
  const proof = new PackProof(pack)
  const hash = createHash('sha256')
  for await (const chunk of storage.stream(key, { signal })) hash.update(chunk)
  proof.name(hash.digest('hex'))
  const header = await repository.readPackHeader(pack.id, pack.sizeBytes, { signal })
  proof.header(() => header)
  for (const blob of pack.blobs) {
    const range = { start: blob.offset, end: blob.offset + blob.length }
    proof.blob(repository, blob, await storage.get(key, { ...range, signal }))
  }
  return proof.damage()
}
