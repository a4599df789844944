import { assert, Fault, isFault } from '#base/faults'
import type { Progress } from '#base/progress'
import type { Prepared, TreeEntry, TreeTarget } from '#change/tree'
import type { Repository } from './repository.ts'
import type { TreeNode } from './tree-codec.ts'
import { joinPath, TreeWalk } from './tree-walk.ts'
import { WaveBytes, type WaveFile } from './wave-bytes.ts'

/** A wave is what is laid out at a time; its bytes are fetched pack by pack, and a target may hold all its files open. */
const waveFilesMax = 4_000
const waveBlobsMax = 100_000
const troublesMax = 1000
/** Damaged paths that the message names. */
const namedMax = 20

/** Which nodes are wanted: `below` says that something in the directory may be. Paths start with `/`. */
export type Selection = (
  path: Buffer,
  kind: TreeEntry['kind'],
) => { readonly selected: boolean; readonly below: boolean }

export type RestoreOptions = {
  readonly signal: AbortSignal
  readonly progress?: Progress | undefined
  readonly select?: Selection | undefined
  /** Where a stored path goes, or undefined to leave it out with all below; both relative. */
  readonly map?: ((path: Buffer) => Buffer | undefined) | undefined
  /** Tell what would be done; the target is one that changes nothing. */
  readonly dryRun?: boolean | undefined
  /** Read every file again when it was written, and compare it. */
  readonly verify?: boolean | undefined
  /** Remove what stands in the target and is not in the snapshot, as far as it is selected. */
  readonly removeOthers?: boolean | undefined
  /** Fetching workers. */
  readonly width?: number | undefined
  readonly onTrouble?: ((trouble: RestoreTrouble) => void) | undefined
  /** Called for each node that was laid out, and for each that was removed. */
  readonly onNode?:
    | ((event: { readonly path: Buffer; readonly did: Prepared | 'linked' | 'removed' }) => void)
    | undefined
}

/**
 * `attributes`: a node stands there without some of its attributes. `left-out`: it could not be made.
 * `damaged`: the vault does not hold its right bytes.
 */
export type RestoreTrouble = {
  readonly kind: 'attributes' | 'left-out' | 'damaged'
  readonly path: string
  readonly said: string
}

export type Restored = {
  readonly files: number
  readonly directories: number
  /** Symlinks, devices, fifos and sockets. */
  readonly others: number
  readonly hardLinks: number
  /** Files that were left alone, by policy or because they were the same. */
  readonly filesKept: number
  readonly removed: number
  readonly totalBytes: bigint
  /** Fetched and written, and found in place. */
  readonly writtenBytes: bigint
  readonly keptBytes: bigint
  readonly troubleCount: number
  readonly troubles: readonly RestoreTrouble[]
}

/**
 * Lays a stored tree out on a target, wave by wave: makes the nodes, compares what is there, fetches the
 * differing chunks pack by pack, and gives each node its attributes last. Every chunk is compared with its
 * hash before it is written. Damage in the vault does not stop the rest: files that it hits are moved aside, and
 * at the end a `corrupt` Fault names them. A node that the system refuses is a trouble; a full target throws.
 * The caller holds the repository's lock and has loaded its index.
 */
export async function restoreTree(
  repository: Repository,
  tree: string,
  target: TreeTarget,
  options: RestoreOptions,
): Promise<Restored> {
  const restorer = new Restorer(repository, target, options)
  await restorer.run(tree)
  await target.flush()
  restorer.throwDamage()
  return restorer.result()
}

/** What is due when the bytes of a wave have been written, in the order of the walk. */
type Wave = {
  readonly files: WaveFile[]
  readonly ends: { readonly path: Buffer; readonly node: TreeNode; readonly file?: WaveFile }[]
  blobs: number
}

/** A directory on the way down; made when something in it is wanted, or it is itself. */
type Open = {
  readonly stored: Buffer
  readonly path: Buffer
  readonly node: TreeNode | undefined
  made: boolean
  readonly names: Set<string> | undefined
}

type Counts = { -readonly [K in keyof Omit<Restored, 'troubles'>]: Restored[K] }

class Restorer {
  readonly #repository: Repository
  readonly #target: TreeTarget
  readonly #options: RestoreOptions
  readonly #bytes: WaveBytes
  readonly #counts: Counts = {
    files: 0,
    directories: 0,
    others: 0,
    hardLinks: 0,
    filesKept: 0,
    removed: 0,
    totalBytes: 0n,
    writtenBytes: 0n,
    keptBytes: 0n,
    troubleCount: 0,
  }
  readonly #troubles: RestoreTrouble[] = []
  readonly #damagedPaths = new Set<string>()
  #wave: Wave = { files: [], ends: [], blobs: 0 }
  /** Where the first name of a file with several names was laid out. Grows with such files only. */
  readonly #linked = new Map<string, { readonly path: Buffer; readonly others: Buffer[] }>()

  constructor(repository: Repository, target: TreeTarget, options: RestoreOptions) {
    this.#repository = repository
    this.#target = target
    this.#options = options
    this.#bytes = new WaveBytes(repository, target, {
      ...options,
      onDamage: (path, said) => this.#damage(path, said),
    })
  }

  async run(tree: string): Promise<void> {
    const { signal } = this.#options
    const onDamage = (path: Buffer, fault: Fault) => this.#damage(path, fault.message)
    const walk = new TreeWalk(this.#repository, tree, { signal, onDamage })
    const open: Open[] = [this.#opened(Buffer.alloc(0), Buffer.alloc(0), undefined)]
    for await (const event of walk) {
      const parent = open.at(-1)
      assert(parent, 'a walk leaves what it entered')
      if (event.kind === 'leave') {
        await this.#leave(parent)
        open.pop()
      } else {
        parent.names?.add(event.node.name.toString('latin1'))
        const path = this.#options.map ? this.#options.map(event.path) : event.path
        if (event.kind === 'enter') {
          const entered = path && (await this.#enter(open, event, path))
          if (entered) open.push(entered)
          else walk.skip()
        } else if (path) await this.#node(open, event, path)
      }
      if (this.#wave.files.length >= waveFilesMax || this.#wave.blobs >= waveBlobsMax)
        await this.#flush()
    }
    const [root] = open
    if (root) await this.#removeOthers(root)
    await this.#flush()
  }

  throwDamage(): void {
    const count = this.#damagedPaths.size
    if (count === 0) return
    const names = Array.from(this.#damagedPaths).slice(0, namedMax)
    const shown = names.map((name) => Buffer.from(name, 'latin1').toString() || '/').join(', ')
    throw new Fault(
      'corrupt',
      `restore ${count} damaged files or directories: ${shown}${count > namedMax ? ', ...' : ''}`,
      {
        hint: 'The rest was restored; what there is of these files has a name that ends in .damaged. Run `redoubt vault check --read-data`.',
      },
    )
  }

  result(): Restored {
    return { ...this.#counts, troubles: this.#troubles }
  }

  #opened(stored: Buffer, path: Buffer, node: TreeNode | undefined): Open {
    const names = this.#options.removeOthers ? new Set<string>() : undefined
    return { stored, path, node, made: node === undefined, names }
  }

  #selected(path: Buffer, kind: TreeEntry['kind']) {
    return (
      this.#options.select?.(Buffer.concat([slash, path]), kind) ?? { selected: true, below: true }
    )
  }

  /** Returns the directory when its contents are wanted. */
  async #enter(
    open: Open[],
    event: { readonly path: Buffer; readonly node: TreeNode },
    path: Buffer,
  ): Promise<Open | undefined> {
    const { selected, below } = this.#selected(event.path, 'dir')
    const entered = this.#opened(event.path, path, event.node)
    if (selected && !(await this.#make([...open, entered]))) return undefined
    return selected || below ? entered : undefined
  }

  async #leave(directory: Open): Promise<void> {
    await this.#removeOthers(directory)
    const { made, node, path } = directory
    if (made && node) this.#wave.ends.push({ path, node })
  }

  async #node(
    open: readonly Open[],
    event: { readonly path: Buffer; readonly node: TreeNode },
    path: Buffer,
  ): Promise<void> {
    const { node } = event
    if (!this.#selected(event.path, node.kind).selected) return
    if (!(await this.#make(open))) return
    if (await this.#link(node, path)) return
    const prepared = await this.#prepare(path, node)
    if (!prepared) return
    if (node.kind !== 'file') {
      this.#counts.others += 1
      if (prepared !== 'kept') this.#wave.ends.push({ path, node })
      return
    }
    this.#counts.files += 1
    this.#counts.totalBytes += node.sizeBytes
    const { progress } = this.#options
    if (progress) progress.totalBytes = (progress.totalBytes ?? 0) + Number(node.sizeBytes)
    if (prepared === 'kept' || prepared === 'same') this.#keep(node.sizeBytes)
    if (prepared === 'kept') return
    const file: WaveFile = { path, node, prepared, differing: undefined, damaged: false }
    this.#wave.files.push(file)
    this.#wave.blobs += node.content?.length ?? 0
    this.#wave.ends.push({ path, node, file })
  }

  #keep(sizeBytes: bigint): void {
    this.#counts.filesKept += 1
    this.#counts.keptBytes += sizeBytes
    if (this.#options.progress) this.#options.progress.doneBytes += Number(sizeBytes)
  }

  /** Makes the directories that were waiting for something wanted; false when one could not be made. */
  async #make(open: readonly Open[]): Promise<boolean> {
    for (const directory of open) {
      if (directory.made || !directory.node) continue
      const prepared = await this.#prepare(directory.path, directory.node)
      if (!prepared) return false
      directory.made = true
      this.#counts.directories += 1
    }
    return true
  }

  /** Another name of a file that was laid out before becomes a hard link. */
  async #link(node: TreeNode, path: Buffer): Promise<boolean> {
    if (node.kind !== 'file' || node.links <= 1) return false
    const key = linkKey(node)
    const first = this.#linked.get(key)
    if (!first) {
      this.#linked.set(key, { path, others: [] })
      return false
    }
    try {
      await this.#target.link(path, first.path)
    } catch (error) {
      this.#refused('left-out', path, error)
      return true
    }
    first.others.push(path)
    this.#counts.hardLinks += 1
    this.#options.onNode?.({ path, did: 'linked' })
    return true
  }

  async #prepare(path: Buffer, node: TreeNode): Promise<Prepared | undefined> {
    const { signal, progress, onNode } = this.#options
    if (progress) progress.current = path.toString()
    try {
      const prepared = await this.#target.prepare(path, node, { signal })
      onNode?.({ path, did: prepared })
      return prepared
    } catch (error) {
      this.#refused('left-out', path, error)
      return undefined
    }
  }

  async #removeOthers(directory: Open): Promise<void> {
    const { names, made } = directory
    // Of a damaged directory nobody knows what belongs into it.
    if (!names || !made || this.#damagedPaths.has(directory.stored.toString('latin1'))) return
    const keep = (name: Buffer) =>
      names.has(name.toString('latin1')) ||
      !this.#selected(joinPath(directory.stored, name), 'file').selected
    for (const path of await this.#target.retain(directory.path, keep)) {
      this.#counts.removed += 1
      this.#options.onNode?.({ path, did: 'removed' })
    }
  }

  /** Brings the bytes of the wave's files in place, then gives all its nodes their attributes. */
  async #flush(): Promise<void> {
    const wave = this.#wave
    this.#wave = { files: [], ends: [], blobs: 0 }
    const { kept, differing } = await this.#bytes.fill(wave.files)
    this.#counts.filesKept += kept.files
    this.#counts.keptBytes += kept.bytes
    this.#counts.writtenBytes += differing
    for (const end of wave.ends) await this.#finish(end)
  }

  async #finish(end: Wave['ends'][number]): Promise<void> {
    const { path, node, file } = end
    if (file?.damaged) return this.#spoil(node, path)
    try {
      await this.#target.finish(path, node)
    } catch (error) {
      this.#refused('attributes', path, error)
    }
    if (this.#options.progress) this.#options.progress.doneItems += 1
  }

  async #spoil(node: TreeNode, path: Buffer): Promise<void> {
    await this.#target.spoil(path)
    const key = linkKey(node)
    for (const other of this.#linked.get(key)?.others ?? []) await this.#target.spoil(other)
    this.#linked.delete(key)
  }

  #damage(path: Buffer, said: string): void {
    this.#damagedPaths.add(path.toString('latin1'))
    this.#trouble('damaged', path, said)
  }

  /** A node that the system refuses costs that node only; a target that takes nothing more ends it all. */
  #refused(kind: 'attributes' | 'left-out', path: Buffer, error: unknown): void {
    if (!isFault(error, 'io', 'missing', 'exists', 'refused', 'unsupported')) throw error
    const cause = error.cause as NodeJS.ErrnoException | undefined
    if (cause?.code === 'EIO' || cause?.code === 'EROFS') throw error
    this.#trouble(kind, path, error.message)
  }

  #trouble(kind: RestoreTrouble['kind'], path: Buffer, said: string): void {
    const trouble = { kind, path: path.toString() || '/', said }
    this.#counts.troubleCount += 1
    if (this.#troubles.length < troublesMax) this.#troubles.push(trouble)
    this.#options.onTrouble?.(trouble)
  }
}

const slash = Buffer.from('/')
function linkKey(node: TreeNode): string {
  return `${node.device}:${node.inode}`
}
