import { Fault, isFault } from '#base/faults'
import { eachLimit } from '#base/tasks'
import type { Storage } from '#storage'
import type { BlobIndex } from './index/blob-index.ts'
import type { BlobOpener } from './blob-opener.ts'
import { type BlobOpeners, openedBytesMax } from './blob-openers.ts'
import { packKey } from './pack.ts'
import type { BlobPlace, BlobType } from './repository.ts'

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
/** Blobs of one range that are on their way through other threads. */
const threadBlobsMax = 4

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

async function loadRange(
  source: Source,
  range: readonly Wanted[],
  { signal, onDamaged, openers }: LoadManyOptions & { readonly openers: BlobOpeners | undefined },
  visit: (id: string, plain: Buffer) => Promise<void>,
): Promise<void> {
  const [first, last] = [range[0], range.at(-1)]
  if (!first || !last) return
  const { pack, offset: start } = first
  let bytes: Buffer | undefined
  try {
    bytes = await source.storage.get(packKey(pack), {
      start,
      end: last.offset + last.length,
      signal,
    })
  } catch (error) {
    // A pack that is gone or too short: each of its blobs may have another copy.
    if (!isFault(error, 'missing', 'corrupt', 'unreachable')) throw error
  }
  await eachLimit(range, openers ? threadBlobsMax : 1, signal, async (blob) => {
    const at = blob.offset - start
    const envelope = bytes?.subarray(at, at + blob.length)
    if (openers && envelope && isForThreads(blob)) {
      if (await openers.open(blob, envelope, (plain) => visit(blob.id, plain))) return
    }
    const opened = envelope && tryOpen(source.opener, envelope, blob)
    const plain = opened ?? (await loadElsewhere(source, blob, signal, onDamaged))
    if (plain) await visit(blob.id, plain)
  })
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
