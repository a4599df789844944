import { Fault, isFault } from '#base/faults'
import { eachLimit } from '#base/tasks'
import type { Storage } from '#storage'
import type { BlobIndex } from './index/blob-index.ts'
import type { BlobOpener } from './blob-opener.ts'
import { type BlobOpeners, openedBytesMax } from './blob-openers.ts'
import { packKey } from './pack.ts'
import type { BlobPlace, BlobPlacing, BlobType } from './repository.ts'

type Source = {
  readonly storage: Storage
  readonly index: BlobIndex
  readonly opener: BlobOpener
  /** Other threads that open blobs; they are begun when asked for. */
  readonly openers: () => BlobOpeners
}
type Wanted = { readonly id: string; readonly type: BlobType } & BlobPlace

/** Blobs that are looked up and sorted by pack at a time: bounds the memory of a large restore. */
const windowBlobs = 65_536
/** Neighbours in a pack are fetched together, with what lies between them if that is little. */
const gapBytesMax = 256 * 1024
const rangeBytesMax = 8 * 1024 * 1024
/** Other threads begin where there is so much to be opened, and take blobs of at least this size: less is not worth the way. */
const threadsFromBytes = 48 * 1024 * 1024
const threadBlobBytesMin = 128 * 1024
/** Blobs of one range that are on their way through other threads, or such bundles. */
const threadBlobsMax = 4
/** Blobs that another thread writes itself go to it in bundles: waking it costs as much as some of the work. */
const bundleBytesMax = 4 * 1024 * 1024
const bundleBlobsMax = 64

/** Reads one blob; when one copy of it is damaged or lost, another one serves. */
export async function loadBlob(
  source: Source,
  type: BlobType,
  id: string,
  signal: AbortSignal,
): Promise<Buffer> {
  let failure: unknown
  for (const place of source.index.findAll(type, id)) {
    try {
      const { pack, offset: start, length } = place
      const envelope = await source.storage.get(packKey(pack), {
        start,
        end: start + length,
        signal,
      })
      return source.opener.open({ ...place, id, type }, envelope)
    } catch (error) {
      if (!isFault(error, 'corrupt', 'missing', 'unreachable')) throw error
      failure ??= named(error, `${type} blob ${id} in pack ${place.pack}`)
    }
  }
  throw failure ?? new Fault('missing', `read ${type} blob ${id}: no index lists it`)
}

function named(error: Fault, what: string): Fault {
  return new Fault(error.code, `read ${what}: ${error.message}`, { cause: error, hint: error.hint })
}

export type LoadManyOptions = {
  readonly signal: AbortSignal
  readonly width: number
  /** What is visited holds only until the visit is over: other threads may open it then. */
  readonly isTransient?: boolean | undefined
  /** Data by default. */
  readonly type?: BlobType | undefined
  /** Takes what cannot be had of a blob, in any copy; without it the fault is thrown. */
  readonly onDamaged?: ((id: string, fault: Fault) => void) | undefined
  /** Where another thread may write a blob itself, instead of a visit. */
  readonly place?: ((id: string) => BlobPlacing | undefined) | undefined
}

/** Reads many blobs of one type: sorted by pack, in ranged reads of neighbours, `width` at a time. */
export async function loadBlobs(
  source: Source,
  ids: Iterable<string>,
  options: LoadManyOptions,
  visit: (id: string, plain: Buffer) => Promise<void>,
): Promise<void> {
  for (const window of windows(ids)) {
    const ranges = planRanges(source.index, window, options)
    const isLarge = sizeOf(ranges) >= threadsFromBytes
    const openers = options.isTransient && isLarge ? source.openers() : undefined
    await eachLimit(ranges, options.width, options.signal, (range, signal) =>
      loadRange(source, range, { ...options, signal, openers }, visit),
    )
  }
}

function sizeOf(ranges: readonly (readonly Wanted[])[]): number {
  return ranges.flat().reduce((sum, { plainLength, length }) => sum + (plainLength || length), 0)
}

function* windows(ids: Iterable<string>): Generator<Set<string>> {
  let window = new Set<string>()
  for (const id of ids) {
    window.add(id)
    if (window.size < windowBlobs) continue
    yield window
    window = new Set()
  }
  if (window.size > 0) yield window
}

function planRanges(
  index: BlobIndex,
  ids: Set<string>,
  { type = 'data', onDamaged }: LoadManyOptions,
): Wanted[][] {
  const wanted: Wanted[] = []
  for (const id of ids) {
    const place = index.find(type, id)
    if (place) {
      wanted.push({ id, type, ...place })
      continue
    }
    const fault = new Fault('missing', `read ${type} blob ${id}: no index lists it`)
    if (!onDamaged) throw fault
    onDamaged(id, fault)
  }
  wanted.sort((a, b) => (a.pack === b.pack ? a.offset - b.offset : a.pack < b.pack ? -1 : 1))
  const ranges: Wanted[][] = []
  for (const blob of wanted) {
    const range = ranges.at(-1)
    if (range && continues(range, blob)) range.push(blob)
    else ranges.push([blob])
  }
  return ranges
}

function continues(range: readonly Wanted[], blob: Wanted): boolean {
  const [first, last] = [range[0], range.at(-1)]
  if (!first || !last || first.pack !== blob.pack) return false
  const gap = blob.offset - (last.offset + last.length)
  return gap <= gapBytesMax && blob.offset + blob.length - first.offset <= rangeBytesMax
}

type RangeOptions = LoadManyOptions & { readonly openers: BlobOpeners | undefined }

async function loadRange(
  source: Source,
  range: readonly Wanted[],
  options: RangeOptions,
  visit: (id: string, plain: Buffer) => Promise<void>,
): Promise<void> {
  const { signal, onDamaged, openers } = options
  const [first, last] = [range[0], range.at(-1)]
  if (!first || !last) return
  const { pack, offset: start } = first
  const bytes = await readRange(source, pack, { start, end: last.offset + last.length, signal })
  const loadOne = async (blob: Wanted) => {
    const at = blob.offset - start
    const envelope = bytes?.subarray(at, at + blob.length)
    if (openers && envelope && isForThreads(blob)) {
      if (await openers.open(blob, envelope, (plain) => visit(blob.id, plain))) return
    }
    const opened = envelope && tryOpen(source.opener, envelope, blob)
    const plain = opened ?? (await loadElsewhere(source, blob, signal, onDamaged))
    if (plain) await visit(blob.id, plain)
  }
  const bundles = openers && bytes ? bundle(range) : range.map((blob) => [blob])
  await eachLimit(bundles, openers ? threadBlobsMax : 1, signal, async (blobs) => {
    const left = bytes ? await placeAll(blobs, start, bytes, options) : blobs
    for (const blob of left) await loadOne(blob)
  })
}

// Undefined for a pack that is gone or too short: each of its blobs may have another copy.
async function readRange(
  { storage }: Source,
  pack: string,
  range: { readonly start: number; readonly end: number; readonly signal: AbortSignal },
): Promise<Buffer | undefined> {
  try {
    return await storage.get(packKey(pack), range)
  } catch (error) {
    if (!isFault(error, 'missing', 'corrupt', 'unreachable')) throw error
    return undefined
  }
}

function bundle(range: readonly Wanted[]): Wanted[][] {
  const bundles: Wanted[][] = []
  let sizeBytes = 0
  for (const blob of range) {
    const size = Math.max(blob.plainLength, blob.length)
    const last = bundles.at(-1)
    if (last && last.length < bundleBlobsMax && sizeBytes + size <= bundleBytesMax) last.push(blob)
    else bundles.push([blob])
    sizeBytes = last === bundles.at(-1) ? sizeBytes + size : size
  }
  return bundles
}

/** Lets another thread open and write what it may; returns the blobs that are left. */
async function placeAll(
  blobs: readonly Wanted[],
  start: number,
  bytes: Buffer,
  { openers, place }: RangeOptions,
): Promise<readonly Wanted[]> {
  if (!openers || !place) return blobs
  const placed: { readonly blob: Wanted; readonly placing: BlobPlacing }[] = []
  try {
    for (const blob of blobs) {
      const placing = isForThreads(blob) ? place(blob.id) : undefined
      if (placing) placed.push({ blob, placing })
    }
    const [first, last] = [placed[0]?.blob, placed.at(-1)?.blob]
    if (!first || !last) return blobs
    const envelopes = bytes.subarray(first.offset - start, last.offset + last.length - start)
    // Cut off in the middle: the usual way finds another copy, or says what is wrong.
    if (envelopes.length < last.offset + last.length - first.offset) return blobs
    const asked = placed.map(({ blob: { id, type, plainLength, offset, length }, placing }) => {
      return { id, type, plainLength, at: offset - first.offset, length, placing }
    })
    const sizes = await openers.place(asked, envelopes)
    const done = new Set<Wanted>()
    for (const [index, { blob, placing }] of placed.entries()) {
      const size = sizes[index]
      if (size === undefined) continue
      placing.written(size)
      done.add(blob)
    }
    return blobs.filter((blob) => !done.has(blob))
  } finally {
    for (const { placing } of placed) placing.release()
  }
}

function isForThreads({ plainLength, length }: Wanted): boolean {
  const size = Math.max(plainLength, length)
  return size >= threadBlobBytesMin && size <= openedBytesMax
}

async function loadElsewhere(
  source: Source,
  { type, id }: Wanted,
  signal: AbortSignal,
  onDamaged: LoadManyOptions['onDamaged'],
): Promise<Buffer | undefined> {
  try {
    return await loadBlob(source, type, id, signal)
  } catch (error) {
    if (!onDamaged || !isFault(error, 'corrupt', 'missing')) throw error
    onDamaged(id, error)
    return undefined
  }
}

function tryOpen(opener: BlobOpener, envelope: Buffer, blob: Wanted): Buffer | undefined {
  try {
    return opener.open(blob, envelope)
  } catch (error) {
    if (isFault(error, 'corrupt')) return undefined
    throw error
  }
}
