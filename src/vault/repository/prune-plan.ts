import { parseSizeBytes } from '#base/bytes'
import { Fault } from '#base/faults'
import { packBlobsTarget, packBytesTarget } from './limits.ts'

/** How much unused data may stay: bytes, a share of what is kept, or any amount. */
export type UnusedLimit =
  | { readonly kind: 'bytes'; readonly sizeBytes: number }
  | { readonly kind: 'percent'; readonly percent: number }
  | { readonly kind: 'unlimited' }

export const defaultUnusedLimit: UnusedLimit = { kind: 'percent', percent: 5 }

/** Reads `5%`, `100M`, `0`, or `unlimited`. */
export function parseUnusedLimit(text: string): UnusedLimit {
  if (text === 'unlimited') return { kind: 'unlimited' }
  const percent = /^(\d{1,3}(?:\.\d+)?)%$/.exec(text)
  if (percent && Number(percent[1]) < 100) return { kind: 'percent', percent: Number(percent[1]) }
  const sizeBytes = parseSizeBytes(text)
  if (sizeBytes !== undefined) return { kind: 'bytes', sizeBytes }
  throw new Fault('usage', `read --max-unused '${text}': it is no limit`, {
    hint: "Give a percentage below 100, a size such as 100M, or 'unlimited'.",
  })
}

/** What is known of an indexed pack. */
export type PackUse = {
  readonly id: string
  /** Bytes of blobs that snapshots need from this very pack, and of all others in it. */
  readonly usedBytes: number
  readonly unusedBytes: number
  readonly blobCount: number
  readonly holdsTrees: boolean
  readonly holdsData: boolean
  readonly isUncompressed: boolean
}

export type PruneRules = {
  readonly maxUnused?: UnusedLimit | undefined
  /** Stop rewriting packs once so much was read for it. */
  readonly maxRepackBytes?: number | undefined
  /** Rewrite packs that an older version stored without compression. */
  readonly repackUncompressed?: boolean | undefined
}

export type PrunePlan = {
  /** Packs that nothing needs. */
  readonly unused: readonly PackUse[]
  /** Packs whose needed blobs are stored anew, so that the rest can go. */
  readonly repack: readonly PackUse[]
  /** Unused bytes that stay. */
  readonly leftBytes: number
}

/** Packs below both are small: joined when together they fill a pack. */
const smallBytes = packBytesTarget / 4
const smallBlobs = packBlobsTarget / 4

/**
 * Decides which packs go and which are rewritten: the emptiest first, until what is left unused is within the limit.
 * Applied to its own outcome it finds nothing more to do.
 */
export function planPrune(packs: readonly PackUse[], rules: PruneRules): PrunePlan {
  const { maxUnused = defaultUnusedLimit, maxRepackBytes = Number.POSITIVE_INFINITY } = rules
  const unused = packs.filter((pack) => pack.usedBytes === 0)
  const used = packs.filter((pack) => pack.usedBytes > 0)
  const usedBytes = used.reduce((sum, pack) => sum + pack.usedBytes, 0)
  let leftBytes = used.reduce((sum, pack) => sum + pack.unusedBytes, 0)
  const limitBytes = unusedBytesMax(maxUnused, usedBytes)
  const must = new Set([...mustRepack(used, rules), ...smallPacks(used)])
  const repack: PackUse[] = []
  let readBytes = 0
  for (const pack of used.toSorted(
    (a, b) => emptiness(b) - emptiness(a) || (a.id < b.id ? -1 : 1),
  )) {
    const due = must.has(pack) || (pack.unusedBytes > 0 && leftBytes > limitBytes)
    if (!due || readBytes + sizeOf(pack) > maxRepackBytes) continue
    repack.push(pack)
    readBytes += sizeOf(pack)
    leftBytes -= pack.unusedBytes
  }
  return { unused, repack, leftBytes }
}

function sizeOf({ usedBytes, unusedBytes }: PackUse): number {
  return usedBytes + unusedBytes
}

function emptiness(pack: PackUse): number {
  return pack.unusedBytes / sizeOf(pack)
}

function unusedBytesMax(limit: UnusedLimit, usedBytes: number): number {
  switch (limit.kind) {
    case 'bytes':
      return limit.sizeBytes
    case 'percent':
      // Of the whole, used and unused together.
      return (limit.percent / (100 - limit.percent)) * usedBytes
    case 'unlimited':
      return Number.POSITIVE_INFINITY
  }
}

/** Version 2 keeps trees and data apart; an older one did not always. */
function mustRepack(
  packs: readonly PackUse[],
  { repackUncompressed }: PruneRules,
): readonly PackUse[] {
  return packs.filter(
    (pack) =>
      (pack.holdsTrees && pack.holdsData) || (repackUncompressed === true && pack.isUncompressed),
  )
}

function smallPacks(packs: readonly PackUse[]): readonly PackUse[] {
  return [true, false].flatMap((holdsTrees) => {
    const small = packs.filter(
      (pack) =>
        pack.holdsTrees === holdsTrees && sizeOf(pack) < smallBytes && pack.blobCount < smallBlobs,
    )
    const sumBytes = small.reduce((sum, pack) => sum + pack.usedBytes, 0)
    return sumBytes >= packBytesTarget ? small : []
  })
}
