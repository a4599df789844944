import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import type { Time } from '#base/time'
import { findSnapshot, passes, type SnapshotFilter } from './forget.ts'
import { IdSet } from './id-set.ts'
import { plainBytesOf } from './pack.ts'
import type { BlobSaver, BlobType, Repository, Snapshot } from './repository.ts'
import { visitTrees } from './tree-usage.ts'

export type CopyOptions = {
  readonly signal: AbortSignal
  /** What to copy, by id or its beginning; or else all that the filter lets pass. */
  readonly ids?: readonly string[] | undefined
  readonly filter?: SnapshotFilter | undefined
  readonly dryRun?: boolean | undefined
  readonly progress?: Progress | undefined
  readonly time?: Time | undefined
}

export type Copied = {
  /** The copies, oldest first, with what each is a copy of; in a dry run their ids are those of the originals. */
  readonly copied: readonly { readonly from: string; readonly to: string }[]
  /** Snapshots that were there already. */
  readonly present: number
  readonly blobs: number
  /** Plain bytes that were new to the target, and what they took in its packs. */
  readonly addedBytes: bigint
  readonly storedBytes: bigint
}

/** Snapshots whose blobs are gathered together: an interrupted copy begins again at the last such round. */
const roundSnapshots = 16
const readsWidth = 4

/**
 * Copies snapshots with all that they need to another repository, which then stands alone. Every blob is proved by
 * its id on the way. Each copy remembers its `original`, by which a later run knows it: nothing is copied twice, not
 * by stock restic either. Holds a shared lock on both.
 */
export async function copySnapshots(
  source: Repository,
  target: Repository,
  options: CopyOptions,
): Promise<Copied> {
  if (source.id === target.id) {
    throw new Fault(
      'usage',
      `copy ${source.storage.url} to ${target.storage.url}: it is the same`,
      {
        hint: 'Name another vault to copy to.',
      },
    )
  }
  await using sourceLock = await source.lock('shared', { ...options, readOnly: true })
  await using targetLock = await target.lock('shared', options)
  const signal = AbortSignal.any([sourceLock.signal, targetLock.signal])
  return await new Copy(source, target, { ...options, signal }).run()
}

class Copy {
  readonly #source: Repository
  readonly #target: Repository
  readonly #options: CopyOptions
  readonly #seen = new IdSet()
  readonly #copied: { readonly from: string; readonly to: string }[] = []
  #blobs = 0
  #addedBytes = 0n
  #storedBytes = 0n

  constructor(source: Repository, target: Repository, options: CopyOptions) {
    this.#source = source
    this.#target = target
    this.#options = options
  }

  async run(): Promise<Copied> {
    const { signal, ids = [], filter = {} } = this.#options
    const all = await this.#source.snapshots({ signal })
    const chosen =
      ids.length > 0
        ? [...new Set(ids.map((id) => findSnapshot(all, id)))]
        : all.filter((snapshot) => passes(snapshot, filter))
    const present = await this.#target.snapshots({ signal })
    const due = chosen.filter((snapshot) => !present.some((other) => isCopy(snapshot, other)))
    const oldestFirst = due.toSorted((a, b) => Date.parse(a.time) - Date.parse(b.time))
    await this.#source.loadIndex({ signal })
    await this.#target.loadIndex({ signal })
    for (let at = 0; at < oldestFirst.length; at += roundSnapshots) {
      await this.#copyRound(oldestFirst.slice(at, at + roundSnapshots))
    }
    return {
      copied: this.#copied,
      present: chosen.length - due.length,
      blobs: this.#blobs,
      addedBytes: this.#addedBytes,
      storedBytes: this.#storedBytes,
    }
  }

  async #copyRound(snapshots: readonly Snapshot[]): Promise<void> {
    const { signal, dryRun = false } = this.#options
    const wanted = await this.#findMissing(snapshots)
    this.#blobs += wanted.data.count + wanted.trees.count
    if (dryRun) {
      this.#measure('data', wanted.data)
      this.#measure('tree', wanted.trees)
      for (const { id } of snapshots) this.#copied.push({ from: id, to: id })
      return
    }
    if (wanted.data.count + wanted.trees.count > 0) {
      await using saver = await this.#target.openSaver({ signal })
      await this.#copyBlobs('data', wanted.data, saver)
      await this.#copyBlobs('tree', wanted.trees, saver)
      const { addedBytes, storedBytes } = await saver.finish()
      this.#addedBytes += addedBytes
      this.#storedBytes += storedBytes
    }
    for (const snapshot of snapshots) {
      signal.throwIfAborted()
      // A parent is of use only where its snapshot is; `original` is the name that survives copies of copies.
      const { id: from, parent: _parent, ...record } = snapshot
      const copy = { ...record, original: snapshot.original ?? from }
      const { id: to } = await this.#target.saveSnapshot(copy, { signal })
      this.#copied.push({ from, to })
    }
  }

  /** Blobs that the snapshots need and the target has not. */
  async #findMissing(snapshots: readonly Snapshot[]) {
    const { signal, progress } = this.#options
    if (progress) progress.phase = 'find missing blobs'
    const wanted = { trees: new IdSet(), data: new IdSet() }
    const roots = snapshots.map(({ tree }) => tree)
    const begun = this.#seen.count
    await visitTrees(this.#source, roots, this.#seen, {
      signal,
      onNode: (_tree, { content = [] }) => {
        for (const id of content) if (!this.#target.has('data', id)) wanted.data.add(id)
      },
    })
    let number = 0
    for (const tree of this.#seen) {
      if (number++ >= begun && !this.#target.has('tree', tree)) wanted.trees.add(tree)
    }
    return wanted
  }

  #measure(type: BlobType, ids: IdSet): void {
    for (const id of ids) {
      const place = this.#source.find(type, id)
      if (!place) continue
      this.#addedBytes += BigInt(plainBytesOf(place))
      this.#storedBytes += BigInt(place.length)
    }
  }

  async #copyBlobs(type: BlobType, ids: IdSet, saver: BlobSaver): Promise<void> {
    const { signal, progress } = this.#options
    if (progress) {
      progress.phase = type === 'tree' ? 'copy trees' : 'copy data'
      progress.doneItems = 0
      progress.totalItems = ids.count
    }
    await this.#source.loadBlobs(ids, { signal, width: readsWidth, type }, async (id, plain) => {
      const saved = await saver.saveBlob(type, plain)
      if (saved !== id) throw new Fault('corrupt', `copy ${type} blob ${id}: it became ${saved}`)
      if (!progress) return
      progress.doneItems += 1
      progress.doneBytes += plain.length
    })
  }
}

/** Whether `other` is a copy of the snapshot, or both are copies of one: by origin, and by what they hold. */
export function isCopy(snapshot: Snapshot, other: Snapshot): boolean {
  const origin = snapshot.original ?? snapshot.id
  if (origin !== (other.original ?? other.id) && origin !== other.id) return false
  return (
    snapshot.tree === other.tree &&
    Date.parse(snapshot.time) === Date.parse(other.time) &&
    (snapshot.hostname ?? '') === (other.hostname ?? '') &&
    (snapshot.username ?? '') === (other.username ?? '') &&
    sameTexts(snapshot.paths, other.paths) &&
    sameTexts(snapshot.tags, other.tags) &&
    sameTexts(snapshot.excludes, other.excludes)
  )
}

function sameTexts(a: readonly string[] = [], b: readonly string[] = []): boolean {
  return a.length === b.length && a.every((text, at) => text === b[at])
}
