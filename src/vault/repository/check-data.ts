import { createHash } from 'node:crypto'
import { Fault, isFault } from '#base/faults'
import { parseSizeBytes } from '#base/bytes'
import { sha256Hex } from './blob-id.ts'
import { packKey } from './pack.ts'
import type { IndexedPack, PackedBlob, Repository } from './repository.ts'

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

/** What reading a pack brought to light. */
export type PackDamage = {
  readonly said: readonly string[]
  /** Blobs that cannot be had from this pack. */
  readonly blobs: readonly string[]
}

/**
 * Reads a pack and proves all of it: its name, its header against the index, each blob by its authenticator and its
 * id. What fails is read a second time, since it may have been the transfer. Undefined when the pack is sound.
 */
export async function checkPackData(
  repository: Repository,
  pack: IndexedPack & { readonly sizeBytes: number },
  options: { readonly signal: AbortSignal },
): Promise<PackDamage | undefined> {
  const first = await readPack(repository, pack, options)
  return first && (await readPack(repository, pack, options))
}

async function readPack(
  repository: Repository,
  pack: IndexedPack & { readonly sizeBytes: number },
  { signal }: { readonly signal: AbortSignal },
): Promise<PackDamage | undefined> {
  const { storage } = repository
  const key = packKey(pack.id)
  const said: string[] = []
  const damaged: string[] = []
  try {
    if (pack.sizeBytes <= wholeBytesMax) {
      const bytes = await storage.get(key, { signal })
      if (sha256Hex(bytes) !== pack.id) said.push('its bytes do not match its name')
      said.push(...attempt(() => compareHeader(pack.blobs, repository.decodePack(pack.id, bytes))))
      for (const blob of pack.blobs) {
        const envelope = bytes.subarray(blob.offset, blob.offset + blob.length)
        const wrong = attempt(() => openBlob(repository, blob, envelope))
        if (wrong.length > 0) damaged.push(blob.id)
        said.push(...wrong)
      }
    } else {
      const hash = createHash('sha256')
      for await (const chunk of storage.stream(key, { signal })) hash.update(chunk)
      if (hash.digest('hex') !== pack.id) said.push('its bytes do not match its name')
      const header = await repository.readPackHeader(pack.id, pack.sizeBytes, { signal })
      said.push(...attempt(() => compareHeader(pack.blobs, header)))
      for (const blob of pack.blobs) {
        const range = { start: blob.offset, end: blob.offset + blob.length }
        const envelope = await storage.get(key, { ...range, signal })
        const wrong = attempt(() => openBlob(repository, blob, envelope))
        if (wrong.length > 0) damaged.push(blob.id)
        said.push(...wrong)
      }
    }
  } catch (error) {
    if (!isFault(error, 'corrupt', 'missing')) throw error
    return { said: [...said, error.message], blobs: pack.blobs.map((blob) => blob.id) }
  }
  return said.length === 0 ? undefined : { said, blobs: damaged }
}

/** Runs a proof; what it found wrong, if anything. */
function attempt(proof: () => void): readonly string[] {
  try {
    proof()
    return []
  } catch (error) {
    if (!isFault(error, 'corrupt')) throw error
    return [error.message]
  }
}

function openBlob(repository: Repository, blob: PackedBlob, envelope: Buffer): void {
  if (envelope.length !== blob.length) {
    throw new Fault('corrupt', `read ${blob.type} blob ${blob.id}: the pack ends before it does`)
  }
  repository.openBlob(blob, envelope)
}

function compareHeader(indexed: readonly PackedBlob[], listed: readonly PackedBlob[]): void {
  const inOrder = indexed.toSorted((a, b) => a.offset - b.offset)
  const same =
    inOrder.length === listed.length && inOrder.every((blob, at) => isSame(blob, listed[at]))
  if (!same) throw new Fault('corrupt', 'its header lists other blobs than the index')
}

function isSame(a: PackedBlob, b: PackedBlob | undefined): boolean {
  return (
    b !== undefined &&
    a.id === b.id &&
    a.type === b.type &&
    a.offset === b.offset &&
    a.length === b.length &&
    a.plainLength === b.plainLength
  )
}
