import { lstat } from 'node:fs/promises'
import { assert, isFault } from '#base/faults'
import type { Progress } from '#base/progress'
import { tasks, type Tasks } from '#base/tasks'
import { systemTime, type Time } from '#base/time'
import type { Content, TreeEntry, TreeSource } from '#change/tree'
import { ArchiveCounts, type ArchiveSummary } from './archive-summary.ts'
import type { CompressionMode } from './compression.ts'
import { formatTimeNs, parseTimeNs } from './go-text.ts'
import { asBefore, PreviousTree } from './previous-tree.ts'
import type { BlobSaver, Repository, Snapshot } from './repository.ts'
import { TreeLoader } from './tree-loader.ts'
import { TreeBuilder, type TreeNode } from './tree-codec.ts'

export type { ArchiveSummary } from './archive-summary.ts'
export { chooseParent } from './parent.ts'

/** Files that are read at the same time, or wait to be. */
const savingMax = 256
/** Finished nodes that wait for an earlier one of their directory: bounds memory, then the walk waits. */
const waitingMax = 20_000
/** A file that changed so shortly before the parent's backup began may have changed unseen while that read it. */
const racyNs = 100_000_000n
/** A file so small is read in one go, and is of one moment: it is not looked at again after that. */
const atOnceMax = 65_536n
/** Troubles that are told one by one; the rest is counted. */
const troublesMax = 1000

export type ArchiveOptions = {
  readonly signal: AbortSignal
  readonly progress?: Progress | undefined
  readonly compression?: CompressionMode | undefined
  readonly workers?: number | undefined
  /** Files that are as they were in this snapshot are not read again. */
  readonly parent?: Snapshot | undefined
  /** Do not take a change of inode number or of ctime for a change of the file. */
  readonly ignoreInode?: boolean | undefined
  readonly ignoreCtime?: boolean | undefined
  /** Saves no snapshot; the repository is one whose storage discards what is written. */
  readonly dryRun?: boolean | undefined
  /** Saves no snapshot when the tree equals the parent's. */
  readonly skipIfUnchanged?: boolean | undefined
  readonly time?: Time | undefined
  /** Called for each node that could not be read, and for each file that changed while it was. */
  readonly onTrouble?: ((trouble: Trouble) => void) | undefined
  /** What the snapshot says beside its tree. */
  readonly facts: Pick<Snapshot, 'paths'> &
    Partial<Omit<Snapshot, 'id' | 'tree' | 'paths' | 'parent' | 'summary'>>
}

/** `unread`: not in the snapshot, or not whole. `changed`: in it, but perhaps of no single moment. */
export type Trouble = {
  readonly kind: 'unread' | 'changed'
  readonly path: string
  readonly said: string
}

export type Archived = {
  /** Undefined after a dry run, or when nothing changed and that was to be skipped. */
  readonly snapshot: Snapshot | undefined
  readonly tree: string
  readonly summary: ArchiveSummary
  /** Nodes that could not be read, and the first of them. */
  readonly unreadCount: number
  readonly changedCount: number
  readonly troubles: readonly Trouble[]
}

/**
 * Saves a file tree as a snapshot: walks the source once, reads what the parent does not have, writes the trees
 * from the leaves up, then the snapshot. The caller holds the repository's lock and has loaded its index.
 * A node that cannot be read is a trouble, and the rest is saved; trouble with the repository throws. What an
 * interrupted run has stored serves the next one.
 */
export async function archiveTree(
  repository: Repository,
  source: TreeSource,
  options: ArchiveOptions,
): Promise<Archived> {
  const { time = systemTime, signal } = options
  const startMs = time.now()
  await using saver = await repository.openSaver({
    signal,
    compression: options.compression,
    workers: options.workers,
  })
  const archiver = new Archiver(repository, saver, options)
  const tree = await archiver.run(source)
  const stats = await saver.finish()
  const summary = archiver.counts.summarize(stats, startMs, time.now())
  const { unreadCount, changedCount, troubles } = archiver
  const unchanged = options.skipIfUnchanged === true && tree === options.parent?.tree
  const snapshot =
    options.dryRun === true || unchanged
      ? undefined
      : await repository.saveSnapshot(
          {
            time: formatTimeNs(BigInt(Math.round(startMs)) * 1_000_000n),
            ...options.facts,
            tree,
            ...(options.parent && { parent: options.parent.id }),
            summary,
          },
          { signal },
        )
  return { snapshot, tree, summary, unreadCount, changedCount, troubles }
}

/** A directory between its `enter` and the moment when its tree is stored. */
type Directory = {
  readonly parent: Directory | undefined
  readonly entry: TreeEntry | undefined
  /** Of its node in the parent. */
  readonly slot: Slot | undefined
  readonly before: TreeNode | undefined
  readonly previous: PreviousTree | undefined
  readonly builder: TreeBuilder
  /** Nodes behind the last one that the builder took, in order; those whose content is being saved lack it. */
  readonly waiting: Slot[]
  taken: number
  left: boolean
}

/** A place in a directory's order: filled when its node is complete, dropped when it could not be read. */
type Slot = { node: TreeNode | undefined; done: boolean }

class Archiver {
  readonly counts = new ArchiveCounts()
  readonly troubles: Trouble[] = []
  unreadCount = 0
  changedCount = 0
  readonly #repository: Repository
  readonly #saver: BlobSaver
  readonly #options: ArchiveOptions
  readonly #trees: TreeLoader
  readonly #racyAfterNs: bigint | undefined
  /** Saves of files and of trees that have not ended. */
  #saving = 0
  /** Called when one ends, by who waits for that. */
  #wake: () => void = () => undefined
  #waiting = 0
  #tree: string | undefined

  constructor(repository: Repository, saver: BlobSaver, options: ArchiveOptions) {
    this.#repository = repository
    this.#saver = saver
    this.#options = options
    this.#trees = new TreeLoader(repository)
    const parentNs = options.parent && parseTimeNs(options.parent.time)
    this.#racyAfterNs = parentNs === undefined ? undefined : parentNs - racyNs
  }

  /** Saves everything and returns the id of the root's tree. */
  async run(source: TreeSource): Promise<string> {
    await tasks(this.#options.signal, async (group) => {
      let directory = await this.#enter(undefined, undefined, undefined, group)
      for await (const event of source.walk({ signal: group.signal })) {
        switch (event.kind) {
          case 'enter':
            directory = await this.#enter(directory, event.entry, event.path, group)
            break
          case 'node':
            this.#node(directory, event, group)
            break
          case 'leave':
            directory.left = true
            this.#settle(directory, group)
            if (!directory.parent)
              throw new Error('broken invariant: a walk leaves what it entered')
            directory = directory.parent
            break
          case 'trouble':
            this.#trouble('unread', event.path, event.error.message)
            break
          default:
            event satisfies never
        }
        if (this.#saving >= savingMax || this.#waiting >= waitingMax) await this.#room(group)
      }
      directory.left = true
      this.#settle(directory, group)
      while (this.#saving > 0) await this.#anyEnd()
    })
    assert(this.#tree !== undefined, 'the root tree was stored')
    return this.#tree
  }

  async #room(group: Tasks): Promise<void> {
    while (this.#saving >= savingMax || this.#waiting >= waitingMax) {
      group.signal.throwIfAborted()
      if (this.#saving === 0) return
      await this.#anyEnd()
    }
  }

  async #enter(
    parent: Directory | undefined,
    entry: TreeEntry | undefined,
    path: Buffer | undefined,
    group: Tasks,
  ): Promise<Directory> {
    const before = entry && parent?.previous?.find(entry.name)
    const subtree = parent ? before?.subtree : this.#options.parent?.tree
    if (this.#options.progress && path) this.#options.progress.current = path.toString()
    return {
      parent,
      entry,
      slot: parent && this.#slot(parent),
      before,
      previous: subtree === undefined ? undefined : await this.#previous(subtree, group.signal),
      builder: new TreeBuilder(),
      waiting: [],
      taken: 0,
      left: false,
    }
  }

  /** A tree of the parent that is damaged or lost is as good as none: its files are read again. */
  async #previous(tree: string, signal: AbortSignal): Promise<PreviousTree | undefined> {
    try {
      return new PreviousTree(await this.#trees.load(tree, signal), tree)
    } catch (error) {
      if (isFault(error, 'corrupt', 'missing')) return undefined
      throw error
    }
  }

  #node(
    directory: Directory,
    event: { readonly entry: TreeEntry; readonly path: Buffer; readonly content?: Content },
    group: Tasks,
  ): void {
    const { entry, path, content } = event
    const before = directory.previous?.find(entry.name)
    if (entry.kind !== 'file') return this.#add(directory, asBefore(entry, before), group)
    if (before && this.#unchanged(before, entry)) {
      const node = asBefore({ ...entry, content: before.content }, before)
      this.#countFile(node, before, true)
      return this.#add(directory, node, group)
    }
    assert(content, 'a file comes with its content')
    const slot = this.#slot(directory)
    this.#start(group, async () => {
      const saved = await this.#save(entry, path, content)
      const node = saved && asBefore(saved, before)
      if (node) this.#countFile(node, before, false)
      this.#fill(directory, slot, node, group)
    })
  }

  #unchanged(before: TreeNode, entry: TreeEntry & { kind: 'file' }): boolean {
    const { ignoreInode = false, ignoreCtime = false } = this.#options
    if (before.kind !== 'file' || before.sizeBytes !== entry.sizeBytes) return false
    if (before.mtimeNs !== entry.mtimeNs) return false
    const ctimeCounts = !ignoreInode && !ignoreCtime
    if (ctimeCounts && before.ctimeNs !== entry.ctimeNs) return false
    if (!ignoreInode && before.inode !== entry.inode) return false
    const changedNs = ctimeCounts ? entry.ctimeNs : entry.mtimeNs
    if (this.#racyAfterNs !== undefined && changedNs >= this.#racyAfterNs) return false
    return (before.content ?? []).every((id) => this.#repository.has('data', id))
  }

  /** The file's node once its bytes are saved; undefined when it could not be read. */
  async #save(
    entry: TreeEntry & { kind: 'file' },
    path: Buffer,
    content: Content,
  ): Promise<TreeNode | undefined> {
    try {
      const { blobs, sizeBytes } = await this.#saver.saveContent(content, this.#options.progress)
      if (content.kind === 'path' && (sizeBytes > atOnceMax || sizeBytes !== entry.sizeBytes))
        await this.#noteChange(entry, path, sizeBytes)
      return { ...entry, kind: 'file', sizeBytes, content: blobs }
    } catch (error) {
      // What the store refuses has other codes, or comes again when the saver finishes.
      if (!isFault(error, 'io', 'missing')) throw error
      // What vanished since its directory was listed is not part of the tree.
      if (error.code !== 'missing') this.#trouble('unread', path, error.message)
      return undefined
    }
  }

  async #noteChange(
    entry: TreeEntry & { kind: 'file' },
    path: Buffer,
    sizeBytes: bigint,
  ): Promise<void> {
    try {
      const now = await lstat(path, { bigint: true })
      const same =
        sizeBytes === entry.sizeBytes &&
        now.mtimeNs === entry.mtimeNs &&
        now.ctimeNs === entry.ctimeNs &&
        now.ino === entry.inode
      if (!same) this.#trouble('changed', path, 'it changed while it was read')
    } catch (error) {
      // Gone since: what was read of it is whole.
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') this.#trouble('changed', path, `looking at it again failed: ${code}`)
    }
  }

  #start(group: Tasks, work: () => Promise<void>): void {
    this.#saving += 1
    const ended = () => {
      this.#saving -= 1
      this.#wake()
    }
    // The group reports a failure; here it only ends the waiting.
    group.run(work).then(ended, ended)
  }

  #anyEnd(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #slot(directory: Directory): Slot {
    const slot: Slot = { node: undefined, done: false }
    directory.waiting.push(slot)
    this.#waiting += 1
    return slot
  }

  #add(directory: Directory, node: TreeNode, group: Tasks): void {
    if (directory.taken === directory.waiting.length) directory.builder.add(node)
    else this.#fill(directory, this.#slot(directory), node, group)
  }

  #fill(directory: Directory, slot: Slot, node: TreeNode | undefined, group: Tasks): void {
    slot.node = node
    slot.done = true
    this.#settle(directory, group)
  }

  /** Moves what is complete into the tree; stores the tree when that was all. */
  #settle(directory: Directory, group: Tasks): void {
    const { waiting, builder } = directory
    for (let slot = waiting[directory.taken]; slot?.done; slot = waiting[directory.taken]) {
      if (slot.node) builder.add(slot.node)
      slot.node = undefined
      directory.taken += 1
      this.#waiting -= 1
    }
    if (directory.taken === waiting.length) {
      waiting.length = 0
      directory.taken = 0
      if (directory.left) this.#start(group, () => this.#store(directory, group))
    } else if (directory.taken > 1024) {
      waiting.splice(0, directory.taken)
      directory.taken = 0
    }
  }

  async #store(directory: Directory, group: Tasks): Promise<void> {
    const { parent, entry, slot, before } = directory
    const blob = directory.builder.done()
    const subtree = await this.#saver.saveBlob('tree', blob, { isGiven: true })
    if (!parent || !entry || !slot) {
      this.#tree = subtree
      return
    }
    const node = asBefore({ ...entry, subtree }, before)
    this.counts.add(node, before)
    this.#fill(parent, slot, node, group)
  }

  #countFile(node: TreeNode, before: TreeNode | undefined, kept: boolean): void {
    if (node.kind !== 'file') return
    this.counts.add(node, before)
    const { progress } = this.#options
    if (!progress) return
    progress.doneItems += 1
    if (kept) progress.doneBytes += Number(node.sizeBytes)
  }

  #trouble(kind: Trouble['kind'], path: Buffer, said: string): void {
    if (kind === 'unread') this.unreadCount += 1
    else this.changedCount += 1
    const trouble = { kind, path: path.toString(), said }
    if (this.troubles.length < troublesMax) this.troubles.push(trouble)
    this.#options.onTrouble?.(trouble)
  }
}
