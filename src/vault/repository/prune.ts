import { Fault, isFault } from '#base/faults'
import type { Progress } from '#base/progress'
import { eachLimit } from '#base/tasks'
import { systemTime, type Time } from '#base/time'
import { IdSet } from './id-set.ts'
import { IndexWriter } from './index/index-writer.ts'
import {
  loadMarkedPacks,
  loadMarks,
  type Mark,
  MarkWriter,
  readUnindexed,
  removeMark,
} from './marks.ts'
import { packKey } from './pack.ts'
import { listPacks } from './pack-list.ts'
import { isKept, type Keepers, type MeasuredPack, measureUse } from './pack-use.ts'
import { planPrune, type PrunePlan, type PruneRules } from './prune-plan.ts'
import type {
  BlobSaver,
  BlobType,
  IndexedPack,
  PackedBlob,
  Repository,
  StoredFile,
} from './repository.ts'
import { findUsedBlobs, type UsedBlobs } from './tree-usage.ts'

export type PruneOptions = PruneRules & {
  readonly signal: AbortSignal
  /** How long a pack that nothing needs is kept, by the store's clock; a day by default. */
  readonly graceMs?: number | undefined
  readonly dryRun?: boolean | undefined
  readonly progress?: Progress | undefined
  readonly time?: Time | undefined
}

/** What was done, or in a dry run what would be. */
export type PruneReport = {
  readonly snapshots: number
  /** Stored packs before. */
  readonly packs: number
  readonly usedBytes: number
  readonly unusedBytes: number
  /** Packs rewritten, and the bytes in them that are needed. */
  readonly repacked: number
  readonly repackedBytes: number
  /** Packs taken out of the index, to be deleted by a prune after the grace period. */
  readonly marked: number
  readonly markedBytes: number
  /** Packs marked earlier: deleted now, still waiting, not let go by the store, or needed again. */
  readonly deleted: number
  readonly deletedBytes: number
  readonly waiting: number
  readonly retained: number
  readonly rescued: number
  /** Unused bytes that stay in packs that are needed for other things. */
  readonly leftBytes: number
}

export const defaultGraceMs = 24 * 3_600_000
const deletesWidth = 8
const packsWidth = 2
/** Larger packs are read blob by blob. */
const wholeBytesMax = 64 * 1024 * 1024
/** So many index files with fewer blobs than this are joined. */
const smallIndexFiles = 16
const smallIndexBlobs = 10_000

/**
 * Frees the space of what no snapshot needs, in two phases. This run rewrites packs that are mostly unused and takes
 * those that nothing needs out of the index, with a mark; a later one, after the grace period by the store's clock and
 * by its own, deletes what was marked and is still not needed. Refuses when a needed blob is missing or a needed pack
 * is not as the index has it. May be killed at any point: the next run goes on. Holds an exclusive lock.
 */
export async function pruneRepository(
  repository: Repository,
  options: PruneOptions,
): Promise<PruneReport> {
  if (repository.version === 1) {
    throw new Fault('unsupported', `prune ${repository.storage.url}: it has version 1`, {
      hint: 'Bring it to version 2 with `restic migrate upgrade_repo_v2`, or copy it to a new vault.',
    })
  }
  await using lock = await repository.lock(options.dryRun ? 'shared' : 'exclusive', options)
  return await new Prune(repository, { ...options, signal: lock.signal }).run()
}

/** What the store held when the run began. */
type Facts = {
  readonly snapshots: number
  readonly marks: readonly Mark[]
  /** Sizes of all packs. */
  readonly stored: Map<string, number>
  readonly used: UsedBlobs
  readonly keepers: Keepers
  /** The indexed packs. */
  readonly uses: ReadonlyMap<string, MeasuredPack>
  /** Packs that neither an index nor a mark lists: left behind by work that was cut short. */
  readonly unindexed: readonly string[]
}

class Prune {
  readonly #repository: Repository
  readonly #options: PruneOptions
  readonly #signal: AbortSignal
  readonly #deleted = new Set<string>()
  #retained = 0
  #rescued = 0

  constructor(repository: Repository, options: PruneOptions) {
    this.#repository = repository
    this.#options = options
    this.#signal = options.signal
  }

  async run(): Promise<PruneReport> {
    const facts = await this.#look()
    const plan = planPrune([...facts.uses.values()], this.#options)
    const { dryRun, graceMs = defaultGraceMs } = this.#options
    await this.#sweep(await this.#chooseExpired(facts.marks, graceMs), facts)
    if (!dryRun) {
      await this.#repack(plan, facts)
      const fresh = await this.#unlist(plan, facts)
      if (graceMs === 0) await this.#sweep(fresh, { ...facts, marks: fresh, uses: new Map() })
    }
    return this.#report(plan, facts)
  }

  #begin(phase: string, totalItems?: number): void {
    const { progress } = this.#options
    if (!progress) return
    progress.phase = phase
    progress.doneItems = 0
    progress.totalItems = totalItems
  }

  #step(): void {
    const { progress } = this.#options
    if (progress) progress.doneItems += 1
  }

  async #look(): Promise<Facts> {
    const options = { signal: this.#signal }
    const snapshots = await this.#repository.snapshots(options)
    await this.#repository.loadIndex(options)
    const marks = await loadMarks(this.#repository, options)
    const stored = await listPacks(this.#repository, options)
    const roots = snapshots.map(({ tree }) => tree)
    const used = await this.#findUsed(roots, marks, stored)
    const { packs: uses, keepers } = measureUse(this.#repository, used)
    await this.#verifyPacks(uses, stored)
    const marked = new Set(marks.flatMap((mark) => mark.packs))
    const unindexed = [...stored.keys()].filter((id) => !uses.has(id) && !marked.has(id))
    return { snapshots: snapshots.length, marks, stored, used, keepers, uses, unindexed }
  }

  /** What the snapshots need. Packs marked earlier that hold something of it come back into the index first. */
  async #findUsed(
    roots: readonly string[],
    marks: readonly Mark[],
    stored: ReadonlyMap<string, number>,
  ): Promise<UsedBlobs> {
    for (;;) {
      this.#begin('find used blobs')
      const missing: { readonly type: BlobType; readonly id: string }[] = []
      const used = await findUsedBlobs(this.#repository, roots, {
        signal: this.#signal,
        onTree: () => this.#step(),
        onDamaged: (id, fault) => {
          if (this.#repository.has('tree', id)) throw refused(fault)
          missing.push({ type: 'tree', id })
        },
      })
      for (const id of used.data) {
        if (!this.#repository.has('data', id)) missing.push({ type: 'data', id })
      }
      const [first] = missing
      if (!first) return used
      if (!(await this.#rescue(missing, marks, stored))) {
        const more = missing.length > 1 ? `, nor ${missing.length - 1} others` : ''
        throw refused(
          new Fault('missing', `find ${first.type} blob ${first.id}: no index lists it${more}`),
        )
      }
    }
  }

  /** Lists marked packs again that hold missing blobs; false when there are none. */
  async #rescue(
    missing: readonly { readonly type: BlobType; readonly id: string }[],
    marks: readonly Mark[],
    stored: ReadonlyMap<string, number>,
  ): Promise<boolean> {
    const options = { signal: this.#signal }
    const wanted = new Set(missing.map(({ type, id }) => `${type} ${id}`))
    const writer = this.#indexWriter()
    let found = 0
    for (const mark of marks) {
      for (const { id, blobs } of await loadMarkedPacks(this.#repository, mark, options)) {
        const sizeBytes = stored.get(id)
        const holds = blobs.some((blob) => wanted.has(`${blob.type} ${blob.id}`))
        if (!holds || sizeBytes === undefined) continue
        // What the pack itself says goes into the index, not what the mark remembers.
        const listed = await this.#repository.readPackHeader(id, sizeBytes, options)
        await writer.add({ id, blobs: listed })
        found += 1
      }
    }
    if (found === 0) return false
    if (this.#options.dryRun) {
      throw new Fault('refused', `prune: ${found} marked packs are needed again`, {
        hint: 'Run it without --dry-run: it takes them back first.',
      })
    }
    await writer.flush()
    await this.#repository.loadIndex(options)
    this.#rescued += found
    return true
  }

  #indexWriter(): IndexWriter {
    const save = async (text: string) => {
      await this.#repository.saveJson('index', text, { signal: this.#signal })
    }
    return new IndexWriter(save, this.#options.time ?? systemTime)
  }

  /** A needed pack must be there with the size that the index says. A late listing is not believed. */
  async #verifyPacks(
    uses: ReadonlyMap<string, MeasuredPack>,
    stored: Map<string, number>,
  ): Promise<void> {
    const { storage } = this.#repository
    for (const { id, usedBytes, packBytes } of uses.values()) {
      if (usedBytes === 0) continue
      const sizeBytes =
        stored.get(id) ?? (await storage.stat(packKey(id), { signal: this.#signal }))?.sizeBytes
      if (sizeBytes !== packBytes) {
        const said = sizeBytes === undefined ? 'it is not there' : `it has ${sizeBytes} bytes`
        throw refused(new Fault('corrupt', `find pack ${id} of ${packBytes} bytes: ${said}`))
      }
      stored.set(id, sizeBytes)
    }
  }

  /** The marks whose grace is over by this machine's clock and by the store's. */
  async #chooseExpired(marks: readonly Mark[], graceMs: number): Promise<readonly Mark[]> {
    if (marks.length === 0) return marks
    const { time = systemTime } = this.#options
    // Our own lock was written minutes ago at most, by the store's clock.
    const locks = await this.#repository.listFiles('locks', { signal: this.#signal })
    const storeNowMs = Math.max(...locks.map((lock) => lock.modifiedMs))
    return marks.filter(
      ({ storedMs, writtenMs }) =>
        storeNowMs - storedMs >= graceMs && !(time.now() - writtenMs < graceMs),
    )
  }

  /** Deletes the packs of expired marks that no index and no younger mark lists, and then the marks. */
  async #sweep(expired: readonly Mark[], { marks, stored, uses }: Facts): Promise<void> {
    this.#begin('delete packs')
    const waiting = new Set(
      marks.filter((mark) => !expired.includes(mark)).flatMap((mark) => mark.packs),
    )
    for (const mark of expired) {
      const due = mark.packs.filter((id) => !uses.has(id) && !waiting.has(id) && stored.has(id))
      const before = this.#retained
      await eachLimit(due, deletesWidth, this.#signal, async (id, signal) => {
        await this.#deletePack(id, signal)
        this.#step()
      })
      if (this.#retained > before || this.#options.dryRun) continue
      await removeMark(this.#repository, mark, { signal: this.#signal })
    }
  }

  /** A pack that the store retains stays marked, for a later prune. */
  async #deletePack(id: string, signal: AbortSignal): Promise<void> {
    try {
      if (!this.#options.dryRun) await this.#repository.storage.delete(packKey(id), { signal })
      this.#deleted.add(id)
    } catch (error) {
      if (!isFault(error, 'denied')) throw error
      this.#retained += 1
    }
  }

  /** Stores the needed blobs of packs anew, and proves that every one has its new place. */
  async #repack({ repack }: PrunePlan, { used, keepers }: Facts): Promise<void> {
    if (repack.length === 0) return
    const signal = this.#signal
    this.#begin('repack', repack.length)
    const leaving = new Set(repack.map(({ id }) => id))
    const moved = { tree: new IdSet(), data: new IdSet() }
    const done = new IdSet()
    const saver = await this.#repository.openSaver({ signal })
    await using _saver = saver
    for (const file of await this.#repository.listFiles('index', { signal })) {
      const packs = await this.#repository.loadIndexFile(file, { signal })
      const due = packs.filter(({ id }) => leaving.has(id) && done.add(id))
      await eachLimit(due, packsWidth, signal, async ({ id, blobs }, inner) => {
        const needed = blobs.filter((blob) => isKept(used, keepers, id, blob))
        await this.#copyBlobs(id, needed, saver, inner)
        for (const blob of needed) moved[blob.type].add(blob.id)
        this.#step()
      })
    }
    await saver.finish()
    for (const type of ['tree', 'data'] as const) {
      for (const id of moved[type]) this.#proveMoved(type, id, leaving)
    }
  }

  #proveMoved(type: BlobType, id: string, leaving: ReadonlySet<string>): void {
    for (const { pack } of this.#repository.findAll(type, id)) if (!leaving.has(pack)) return
    throw new Fault('corrupt', `repack ${type} blob ${id}: it was stored, and no index lists it`)
  }

  async #copyBlobs(
    pack: string,
    blobs: readonly PackedBlob[],
    saver: BlobSaver,
    signal: AbortSignal,
  ): Promise<void> {
    const { storage } = this.#repository
    const end = blobs.reduce((last, blob) => Math.max(last, blob.offset + blob.length), 0)
    const isWhole = end <= wholeBytesMax
    const bytes = isWhole ? await storage.get(packKey(pack), { end, signal }) : undefined
    for (const blob of blobs) {
      const plain =
        (bytes && this.#open(bytes, blob)) ??
        (await this.#repository.loadBlob(blob.type, blob.id, { signal }))
      await saver.saveBlob(blob.type, plain, { again: true })
    }
  }

  /** Undefined when the copy in this pack is damaged: there may be another one. */
  #open(bytes: Buffer, blob: PackedBlob): Buffer | undefined {
    try {
      return this.#repository.openBlob(blob, bytes.subarray(blob.offset, blob.offset + blob.length))
    } catch (error) {
      if (isFault(error, 'corrupt')) return undefined
      throw error
    }
  }

  /**
   * Takes packs out of the index. Marks come first, then index files of what stays, then the old index files go:
   * killed anywhere between, each needed pack is listed, and each other one is listed or marked.
   */
  async #unlist(plan: PrunePlan, { unindexed, stored }: Facts): Promise<readonly Mark[]> {
    const options = { signal: this.#signal }
    this.#begin('write index')
    const leaving = new Set([...plan.unused, ...plan.repack].map(({ id }) => id))
    const marks = new MarkWriter(this.#repository, { ...options, time: this.#options.time })
    const old = await this.#chooseIndexFiles(leaving, marks)
    for (const id of unindexed) {
      const pack = await readUnindexed(this.#repository, id, stored.get(id) ?? 0, options)
      if (pack) await marks.add(pack)
    }
    const fresh = await marks.finish()
    const writer = this.#indexWriter()
    const written = new IdSet()
    for (const file of old) {
      for (const pack of await this.#repository.loadIndexFile(file, options)) {
        if (!leaving.has(pack.id) && written.add(pack.id)) await writer.add(pack)
      }
    }
    await writer.flush()
    for (const { id } of old) await this.#repository.storage.delete(`index/${id}`, options)
    await this.#repository.loadIndex(options)
    return fresh
  }

  /** The index files to replace: those that list packs on their way out, and small ones when there are many. */
  async #chooseIndexFiles(
    leaving: ReadonlySet<string>,
    marks: MarkWriter,
  ): Promise<readonly StoredFile[]> {
    const options = { signal: this.#signal }
    const affected: StoredFile[] = []
    const small: StoredFile[] = []
    for (const file of await this.#repository.listFiles('index', options)) {
      const packs = await this.#repository.loadIndexFile(file, options)
      const gone = packs.filter(({ id }) => leaving.has(id))
      for (const pack of gone) await marks.add(pack)
      if (gone.length > 0 || packs.length === 0) affected.push(file)
      else if (countBlobs(packs) < smallIndexBlobs) small.push(file)
    }
    return small.length >= smallIndexFiles ? [...affected, ...small] : affected
  }

  #report(plan: PrunePlan, { snapshots, marks, stored, uses, unindexed }: Facts): PruneReport {
    const sizeOf = (ids: Iterable<string>) =>
      [...ids].reduce((sum, id) => sum + (stored.get(id) ?? 0), 0)
    const sum = (packs: Iterable<MeasuredPack>, field: 'usedBytes' | 'unusedBytes') =>
      [...packs].reduce((total, pack) => total + pack[field], 0)
    const marked = [...plan.unused, ...plan.repack].map(({ id }) => id).concat(unindexed)
    const repacked = plan.repack.flatMap(({ id }) => uses.get(id) ?? [])
    const waiting = new Set(marks.flatMap((mark) => mark.packs))
    const stillWaits = (id: string) => stored.has(id) && !uses.has(id) && !this.#deleted.has(id)
    return {
      snapshots,
      packs: stored.size,
      usedBytes: sum(uses.values(), 'usedBytes'),
      unusedBytes: sum(uses.values(), 'unusedBytes'),
      repacked: repacked.length,
      repackedBytes: sum(repacked, 'usedBytes'),
      marked: marked.length,
      markedBytes: sizeOf(marked),
      deleted: this.#deleted.size,
      deletedBytes: sizeOf(this.#deleted),
      waiting: [...waiting].filter(stillWaits).length,
      retained: this.#retained,
      rescued: this.#rescued,
      leftBytes: plan.leftBytes,
    }
  }
}

function countBlobs(packs: readonly IndexedPack[]): number {
  return packs.reduce((sum, pack) => sum + pack.blobs.length, 0)
}

function refused(error: Fault): Fault {
  return new Fault('refused', `prune: ${error.message}`, {
    cause: error,
    hint: 'Nothing was deleted. `redoubt vault check` names the snapshots that are affected: forget those, or copy them back from another vault.',
  })
}
