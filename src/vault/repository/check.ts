import { availableParallelism } from 'node:os'
import { formatSizeBytes } from '#base/bytes'
import { isFault } from '#base/faults'
import type { Progress } from '#base/progress'
import { eachLimit } from '#base/tasks'
import type { Time } from '#base/time'
import { checkPackData, choosePacks, type DataSubset } from './check-data.ts'
import { IdSet } from './id-set.ts'
import { readKey } from './keys.ts'
import { loadMarkedPacks, loadMarks } from './marks.ts'
import { headerEntryBytes, packKey, packSizeBytes } from './pack.ts'
import type { Repository, Snapshot } from './repository.ts'
import { decodeSnapshot } from './snapshots.ts'
import { listPacks } from './pack-list.ts'
import { traceBadBlobs, visitTrees } from './tree-usage.ts'

/** One thing that is not as it should be. A `note` costs space at most; an `error` costs data. */
export type Finding = {
  readonly severity: 'error' | 'note'
  /** What it is about: `pack 3f2a…`, `snapshot …`. */
  readonly about: string
  readonly said: string
  /** Snapshots that cannot be restored in full because of it. */
  readonly snapshots: readonly string[]
}

export type CheckReport = {
  /** Whether no finding is an error. */
  readonly ok: boolean
  readonly findings: readonly Finding[]
  /** Findings beyond the most that are listed. */
  readonly unlisted: number
  readonly snapshots: number
  readonly trees: number
  readonly blobs: number
  readonly packs: number
  readonly packsRead: number
  readonly readBytes: number
}

export type CheckOptions = {
  readonly signal: AbortSignal
  /** Packs whose data is read and proved; none by default. */
  readonly readData?: DataSubset | undefined
  readonly progress?: Progress | undefined
  /** Called once with every snapshot that can be read, as listed at the beginning. */
  readonly onSnapshots?: ((snapshots: readonly Snapshot[]) => void) | undefined
  readonly random?: (() => number) | undefined
  readonly time?: Time | undefined
}

const findingsMax = 100_000
const snapshotsWidth = 8
/** Below this, threads cost more than they save. */
const proverBytesMin = 64 * 1024 * 1024

/** One for each processor: this thread only reads and hands over. */
const proverThreads = Math.min(availableParallelism(), 4)
/** Packs in memory at a time: those that are proved, and two that are read meanwhile. */
const packsWidth = proverThreads + 2

/**
 * Checks that every snapshot can be restored: indexes and packs fit each other, all trees decode, every blob is
 * there; with `readData` also that the bytes are what was written. Returns all findings and throws only where the
 * store does not answer. Holds a shared lock.
 */
export async function checkRepository(
  repository: Repository,
  options: CheckOptions,
): Promise<CheckReport> {
  await using lock = await repository.lock('shared', { ...options, readOnly: true })
  return await new Check(repository, { ...options, signal: lock.signal }).run()
}

type Draft = Omit<Finding, 'snapshots'> & { readonly bad: readonly string[] }

class Check {
  readonly #repository: Repository
  readonly #options: CheckOptions
  readonly #drafts: Draft[] = []
  #unlisted = 0
  /** Packs of which nothing can be had, and blobs of other packs that cannot, as `pack blob`. */
  readonly #badPacks = new Map<string, string>()
  readonly #badPlaces = new Set<string>()
  /** Blobs that no place gives. */
  readonly #lost = new Set<string>()
  #packsRead = 0
  #readBytes = 0

  constructor(repository: Repository, options: CheckOptions) {
    this.#repository = repository
    this.#options = options
  }

  async run(): Promise<CheckReport> {
    // Snapshots are listed before the index is loaded, and that before the packs: what is written meanwhile then
    // looks unused, never missing.
    const snapshots = await this.#checkSnapshots()
    this.#options.onSnapshots?.(snapshots)
    await this.#checkKeys()
    await this.#repository.loadIndex({
      signal: this.#options.signal,
      onDamaged: (id, fault) => this.#error(`index ${id}`, fault.message),
    })
    const stored = await this.#checkPacks()
    if (this.#options.readData) await this.#checkData(stored, this.#options.readData)
    const trees = await this.#checkTrees(snapshots)
    await this.#checkMarks()
    const findings = await this.#trace(snapshots)
    return {
      ok: findings.every((finding) => finding.severity === 'note'),
      findings,
      unlisted: this.#unlisted,
      snapshots: snapshots.length,
      trees,
      blobs: this.#repository.blobCount,
      packs: stored.size,
      packsRead: this.#packsRead,
      readBytes: this.#readBytes,
    }
  }

  #error(about: string, said: string, bad: readonly string[] = []): void {
    this.#add({ severity: 'error', about, said, bad })
  }

  #note(about: string, said: string): void {
    this.#add({ severity: 'note', about, said, bad: [] })
  }

  #add(draft: Draft): void {
    if (this.#drafts.length < findingsMax) this.#drafts.push(draft)
    else this.#unlisted += 1
  }

  #begin(phase: string): void {
    const { progress } = this.#options
    if (!progress) return
    progress.phase = phase
    progress.doneItems = 0
    progress.doneBytes = 0
    progress.totalItems = undefined
    progress.totalBytes = undefined
  }

  async #checkSnapshots(): Promise<readonly Snapshot[]> {
    this.#begin('check snapshots')
    const { signal } = this.#options
    const snapshots: Snapshot[] = []
    const files = await this.#repository.listFiles('snapshots', { signal })
    await eachLimit(files, snapshotsWidth, signal, async (file) => {
      try {
        const json = await this.#repository.loadJson('snapshots', file, { signal })
        snapshots.push(decodeSnapshot(file.id, json))
      } catch (error) {
        if (!isFault(error, 'corrupt', 'missing')) throw error
        this.#error(`snapshot ${file.id}`, error.message, [file.id])
      }
    })
    return snapshots
  }

  /** A damaged key touches no snapshot, but locks out who has its password. */
  async #checkKeys(): Promise<void> {
    const { signal } = this.#options
    for (const file of await this.#repository.listFiles('keys', { signal })) {
      try {
        await readKey(this.#repository.storage, file, { signal })
      } catch (error) {
        if (!isFault(error, 'corrupt', 'missing')) throw error
        this.#error(`key ${file.id}`, error.message)
      }
    }
  }

  /** Compares what the index says of packs with what is stored; returns the indexed packs that are there. */
  async #checkPacks(): Promise<ReadonlyMap<string, number>> {
    this.#begin('check packs')
    const { signal } = this.#options
    const expected = this.#expectedPacks()
    const listed = await listPacks(this.#repository, { signal })
    const present = new Map<string, number>()
    for (const [pack, { sizeBytes, types }] of expected) {
      // A listing may be late; a question for the object itself is not.
      const storedBytes = listed.get(pack) ?? (await this.#statPack(pack))
      listed.delete(pack)
      if (types.size > 1) this.#note(`pack ${pack}`, 'it holds trees and data')
      if (storedBytes === undefined) this.#badPacks.set(pack, 'it is not there')
      else {
        present.set(pack, storedBytes)
        if (storedBytes !== sizeBytes) {
          this.#badPacks.set(pack, `it has ${storedBytes} bytes, the index says ${sizeBytes}`)
        }
      }
    }
    await this.#noteUnindexed(listed)
    return present
  }

  async #statPack(pack: string): Promise<number | undefined> {
    const { signal } = this.#options
    return (await this.#repository.storage.stat(packKey(pack), { signal }))?.sizeBytes
  }

  #expectedPacks() {
    const expected = new Map<string, { sizeBytes: number; readonly types: Set<string> }>()
    for (const { pack, type, length, plainLength } of this.#repository.blobs()) {
      let entry = expected.get(pack)
      if (!entry) expected.set(pack, (entry = { sizeBytes: packSizeBytes([]), types: new Set() }))
      entry.sizeBytes += length + headerEntryBytes(plainLength)
      entry.types.add(type)
    }
    return expected
  }

  async #noteUnindexed(left: ReadonlyMap<string, number>): Promise<void> {
    if (left.size === 0) return
    const sizeBytes = [...left.values()].reduce((sum, size) => sum + size, 0)
    const some = [...left.keys()].slice(0, 3).join(', ')
    this.#note(
      `${left.size} packs`,
      `no index lists them (${formatSizeBytes(sizeBytes)}; ${some}): interrupted work, or on their way out; prune deletes them`,
    )
  }

  /** Reads packs, guided by the index files, so that no more than one file's packs are in memory at a time. */
  async #checkData(stored: ReadonlyMap<string, number>, subset: DataSubset): Promise<void> {
    this.#begin('read data')
    const { signal, progress, random = Math.random } = this.#options
    const chosen = choosePacks(stored, subset, random)
    const chosenBytes = [...chosen].reduce((sum, id) => sum + (stored.get(id) ?? 0), 0)
    if (progress) {
      progress.totalItems = chosen.size
      progress.totalBytes = chosenBytes
    }
    await using prover =
      proverThreads === 1 || chosenBytes < proverBytesMin
        ? undefined
        : this.#repository.openPackProver(proverThreads)
    const done = new IdSet()
    for (const file of await this.#repository.listFiles('index', { signal })) {
      const packs = await this.#loadIndexFile(file)
      const due = packs.filter(({ id }) => chosen.has(id) && done.add(id))
      await eachLimit(due, packsWidth, signal, async (pack, inner) => {
        const sizeBytes = stored.get(pack.id) ?? 0
        const damage = await checkPackData(
          this.#repository,
          { ...pack, sizeBytes },
          { signal: inner, prover },
        )
        for (const blob of damage?.blobs ?? []) this.#badPlaces.add(`${pack.id} ${blob}`)
        if (damage && !this.#badPacks.has(pack.id)) {
          for (const said of damage.said) this.#error(`pack ${pack.id}`, said, damage.blobs)
        }
        this.#packsRead += 1
        this.#readBytes += sizeBytes
        if (progress) {
          progress.doneItems += 1
          progress.doneBytes += sizeBytes
        }
      })
    }
  }

  async #loadIndexFile(file: { readonly id: string; readonly sizeBytes: number }) {
    try {
      return await this.#repository.loadIndexFile(file, { signal: this.#options.signal })
    } catch (error) {
      // It was found when the index was loaded.
      if (!isFault(error, 'corrupt', 'missing')) throw error
      return []
    }
  }

  async #checkTrees(snapshots: readonly Snapshot[]): Promise<number> {
    this.#begin('check trees')
    const { signal, progress } = this.#options
    const seen = new IdSet()
    const missing = new IdSet()
    await visitTrees(
      this.#repository,
      snapshots.map((snapshot) => snapshot.tree),
      seen,
      {
        signal,
        onTree: () => {
          if (progress) progress.doneItems += 1
        },
        onDamaged: (tree, fault) => {
          this.#lost.add(tree)
          this.#error(`tree ${tree}`, fault.message, [tree])
        },
        onNode: (_tree, { content = [] }) => {
          for (const id of content) {
            if (!this.#repository.has('data', id) && missing.add(id)) {
              this.#lost.add(id)
              this.#error(`data blob ${id}`, 'no index lists it', [id])
            }
          }
        },
      },
    )
    return seen.count
  }

  /** What is missing may be in a pack on its way out: then it is not lost yet. */
  async #checkMarks(): Promise<void> {
    const options = { signal: this.#options.signal }
    let held = 0
    try {
      for (const mark of await loadMarks(this.#repository, options)) {
        if (this.#lost.size === 0) continue
        for (const { blobs } of await loadMarkedPacks(this.#repository, mark, options)) {
          held += blobs.filter(({ id }) => this.#lost.has(id)).length
        }
      }
    } catch (error) {
      if (!isFault(error, 'corrupt', 'missing')) throw error
      this.#note('marks', `${error.message}; prune refuses until it is removed`)
    }
    if (held > 0) {
      this.#note(
        'marks',
        `${held} missing blobs are in packs on their way out: prune takes them back`,
      )
    }
  }

  /** Names the snapshots that each finding is about. */
  async #trace(snapshots: readonly Snapshot[]): Promise<readonly Finding[]> {
    this.#begin('find affected snapshots')
    const held = this.#blobsOfBadPacks()
    for (const [pack, said] of this.#badPacks) this.#error(`pack ${pack}`, said, held.get(pack))
    const bad = new Set(this.#drafts.flatMap((draft) => draft.bad.filter((id) => this.#isLost(id))))
    const roots = new Map<string, string[]>()
    for (const { id, tree } of snapshots) roots.set(tree, [...(roots.get(tree) ?? []), id])
    const users =
      bad.size === 0
        ? new Map<string, ReadonlySet<string>>()
        : await traceBadBlobs(this.#repository, roots, bad, this.#options)
    const unreadable = new Set(this.#drafts.map((draft) => draft.about))
    return this.#drafts.map(({ severity, about, said, bad: ids }) => {
      const own = ids.filter((id) => unreadable.has(`snapshot ${id}`))
      const affected = new Set([...own, ...ids.flatMap((id) => [...(users.get(id) ?? [])])])
      return { severity, about, said, snapshots: [...affected].sort() }
    })
  }

  #blobsOfBadPacks(): ReadonlyMap<string, string[]> {
    const held = new Map([...this.#badPacks.keys()].map((pack) => [pack, [] as string[]]))
    if (held.size === 0) return held
    for (const { pack, id } of this.#repository.blobs()) held.get(pack)?.push(id)
    return held
  }

  /** Whether no sound place of the blob is known. */
  #isLost(id: string): boolean {
    if (this.#lost.has(id)) return true
    for (const type of ['data', 'tree'] as const) {
      for (const { pack } of this.#repository.findAll(type, id)) {
        if (!this.#badPacks.has(pack) && !this.#badPlaces.has(`${pack} ${id}`)) return false
      }
    }
    return true
  }
}
