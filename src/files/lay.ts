import {
  chmodSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { closeSync } from 'node:fs'
import { assert, Fault, fromSystem } from '#base/faults'
import { makeFolders } from '#base/folders'
import { withoutZeroEnds } from '#base/zeroes'
import type { HeldFile, Prepared, TreeEntry, TreeTarget, Xattr } from '#change/tree'
import { loadNative, type Native } from './native.ts'
import { OpenFiles } from './open-files.ts'
import { show } from './byte-text.ts'
import { Directories } from './directories.ts'

/** What to do about files that are there already; `refuse` accepts an empty or missing directory only. */
export type Overwrite = 'refuse' | 'always' | 'if-changed' | 'if-newer' | 'never'

export type LayOptions = {
  readonly overwrite?: Overwrite | undefined
  /** Leave runs of zeroes as holes. */
  readonly sparse?: boolean | undefined
  /** Give nodes their owners; by default when the process may. */
  readonly owners?: boolean | undefined
  /** Remove a directory that stands where something else should. */
  readonly removeDirectories?: boolean | undefined
  /** Look only: report what would be found, change nothing. */
  readonly dryRun?: boolean | undefined
}

/** A local directory as a target; closing it closes what is open, `flush` makes it durable. */
export interface LocalTarget extends TreeTarget, AsyncDisposable {}

/**
 * Opens a directory as the root of a tree that is laid out, making it if need be. Throws `refused` when it holds
 * something and `overwrite` does not say what to do about that. Metadata calls block for a moment each; bytes
 * are read and written by node's pool of threads.
 */
export async function openTarget(directory: string, options: LayOptions): Promise<LocalTarget> {
  const overwrite = options.overwrite ?? 'refuse'
  const found = namesIn(directory)
  if (overwrite === 'refuse' && found.length > 0)
    throw new Fault(
      'refused',
      `lay out a tree in ${directory}: it is not empty, it holds ${found.length} entries`,
      { hint: 'Name an empty directory, or say with --overwrite what to do about existing files.' },
    )
  try {
    if (!options.dryRun) await makeFolders(directory)
    return new Layer(directory, { ...options, overwrite })
  } catch (error) {
    throw fromSystem(error, `open the target directory ${directory}`)
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw fromSystem(error, `open the target directory ${directory}`)
  }
}

const pathOnly = 0o10000000 // O_PATH
const makeFile = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
const setIdBits = 0o6000
/** Attributes that belong to the tree; others are the system's (labels), and stay as they are. */
const ownXattr = /^(?:user\.|trusted\.|system\.posix_acl_|security\.capability$)/

class Layer implements LocalTarget {
  readonly #native: Native = loadNative()
  readonly #directories: Directories
  readonly #files: OpenFiles
  readonly #overwrite: Overwrite
  readonly #sparse: boolean
  readonly #owners: boolean
  readonly #removeDirectories: boolean
  readonly #dryRun: boolean
  readonly #privileged = process.geteuid?.() === 0
  /** Files made by this run and not finished: what was not written of them is a hole. */
  readonly #fresh = new Set<string>()
  /** Directories made by this run and not finished: nothing is in them but what it made, and they hand no access list down. */
  readonly #bare = new Set<string>()

  constructor(directory: string, options: LayOptions & { readonly overwrite: Overwrite }) {
    this.#directories = new Directories(directory)
    this.#files = new OpenFiles(this.#directories)
    this.#overwrite = options.overwrite
    this.#sparse = options.sparse ?? true
    this.#owners = options.owners ?? process.geteuid?.() === 0
    this.#removeDirectories = options.removeDirectories ?? false
    this.#dryRun = options.dryRun ?? false
  }

  async prepare(
    path: Buffer,
    entry: TreeEntry,
    options: { readonly signal: AbortSignal },
  ): Promise<Prepared> {
    options.signal.throwIfAborted()
    return this.#doing(`make ${show(path)}`, () => {
      const stats = this.#stats(path)
      if (entry.kind === 'dir') return this.#prepareDirectory(path, stats)
      if (stats && this.#keeps(entry, stats)) return 'kept'
      if (entry.kind === 'file')
        return this.#prepareFile(path, entry.sizeBytes, entry.mtimeNs, stats)
      if (this.#dryRun) return stats ? 'present' : 'new'
      if (stats) this.#removeInTheWay(path, stats)
      this.#make(path, entry)
      return 'new'
    })
  }

  async link(path: Buffer, existing: Buffer): Promise<void> {
    this.#doing(`link ${show(path)} to ${show(existing)}`, () => {
      if (this.#dryRun) return
      const stats = this.#stats(path)
      const wanted = stats && this.#stats(existing)
      if (stats && wanted && stats.ino === wanted.ino && stats.dev === wanted.dev) return
      if (stats) this.#removeInTheWay(path, stats)
      linkSync(this.#at(existing), this.#at(path))
    })
  }

  async read(path: Buffer, offset: number, sizeBytes: number): Promise<Buffer> {
    return this.#files.read(path, offset, sizeBytes)
  }

  async write(path: Buffer, offset: number, bytes: Uint8Array): Promise<void> {
    if (this.#dryRun) return
    if (!this.#sparse || !this.#fresh.has(path.toString('latin1')))
      return this.#files.write(path, offset, bytes)
    const { start, end } = withoutZeroEnds(bytes)
    if (start < end) await this.#files.write(path, offset + start, bytes.subarray(start, end))
  }

  async zero(path: Buffer, offset: number, sizeBytes: number): Promise<void> {
    if (this.#dryRun) return
    if (this.#fresh.has(path.toString('latin1')) && this.#sparse) return
    const punched =
      this.#sparse &&
      this.#files.use(path, (descriptor) => this.#native.punchHole(descriptor, offset, sizeBytes))
    if (punched) return
    const end = offset + sizeBytes
    for (let at = offset; at < end; at += zeroes.length)
      await this.#files.write(path, at, zeroes.subarray(0, Math.min(zeroes.length, end - at)))
  }

  hold(path: Buffer): HeldFile | undefined {
    if (this.#dryRun || !this.#sparse || !this.#fresh.has(path.toString('latin1'))) return undefined
    return this.#files.hold(path)
  }

  async finish(path: Buffer, entry: TreeEntry): Promise<void> {
    if (this.#dryRun) return
    this.#fresh.delete(path.toString('latin1'))
    const failures: unknown[] = []
    const attempt = (what: string, work: () => void) => {
      try {
        work()
      } catch (error) {
        failures.push(fromSystem(error, `set the ${what} of ${show(path)}`))
      }
    }
    // In this order: a change of owner clears set-id bits and capabilities, an access list sets mode bits.
    this.#withNode(path, entry, (node) => {
      if (this.#owners) attempt('owner', () => node.chown(entry.uid, entry.gid))
      if (entry.xattrs.length > 0 || !this.#inBare(path))
        attempt('extended attributes', () => this.#setXattrs(node.path, entry))
      if (entry.kind !== 'symlink') attempt('mode', () => node.chmod(this.#allowedMode(entry)))
      attempt('times', () => node.setTimes(entry.atimeNs, entry.mtimeNs))
    })
    if (entry.kind === 'dir') {
      this.#directories.close(path)
      this.#bare.delete(path.toString('latin1'))
    }
    if (failures.length > 0) throw failures[0]
  }

  async spoil(path: Buffer): Promise<void> {
    if (this.#dryRun) return
    this.#doing(`move damaged ${show(path)} out of the way`, () => {
      this.#fresh.delete(path.toString('latin1'))
      this.#files.close(path)
      for (let number = 0; ; number++) {
        const suffix = number === 0 ? '.damaged' : `.damaged-${number}`
        const aside = Buffer.concat([path, Buffer.from(suffix)])
        if (lstatSync(this.#at(aside), { throwIfNoEntry: false })) continue
        renameSync(this.#at(path), this.#at(aside))
        return
      }
    })
  }

  async retain(path: Buffer, keep: (name: Buffer) => boolean): Promise<Buffer[]> {
    return this.#doing(`remove what is not in the tree from ${show(path)}`, () => {
      const removed: Buffer[] = []
      if (this.#dryRun && !this.#directories.has(path)) return removed
      const directory = this.#directories.path(path)
      for (const name of readdirSync(directory, { encoding: 'buffer' })) {
        if (keep(name)) continue
        const gone = path.length === 0 ? name : Buffer.concat([path, slash, name])
        this.#directories.closeBelow(gone)
        if (!this.#dryRun) rmSync(this.#at(gone), { recursive: true, force: true })
        removed.push(gone)
      }
      return removed
    })
  }

  async flush(): Promise<void> {
    if (this.#dryRun) return
    const descriptor = this.#directories.descriptor(Buffer.alloc(0))
    await this.#native.syncFileSystem(descriptor)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#files.closeAll()
    this.#directories.closeAll()
  }

  #prepareDirectory(path: Buffer, stats: BigIntStats | undefined): Prepared {
    if (stats?.isDirectory()) {
      // Without these rights its entries could not be laid out; `finish` gives it its own mode.
      if (!this.#dryRun && !this.#privileged && (stats.mode & 0o700n) !== 0o700n)
        this.#withPathOnly(path, (node) => chmodSync(node, 0o700))
      return 'present'
    }
    if (this.#dryRun) return 'new'
    if (stats) unlinkSync(this.#at(path))
    mkdirSync(this.#at(path), { mode: 0o700 })
    if (this.#inBare(path) || !this.#native.readXattrs(this.#at(path)).some(isAccessList))
      this.#bare.add(path.toString('latin1'))
    return 'new'
  }

  #prepareFile(
    path: Buffer,
    sizeBytes: bigint,
    mtimeNs: bigint,
    stats: BigIntStats | undefined,
  ): Prepared {
    const unchanged = stats?.isFile() && stats.size === sizeBytes && stats.mtimeNs === mtimeNs
    if (unchanged && this.#overwrite === 'if-changed') return 'same'
    // A file with other names is made anew: those names may lie outside of this tree.
    if (stats?.isFile() && stats.nlink === 1n) {
      if (this.#dryRun) return 'present'
      this.#openForWriting(path, stats)
      if (stats.size !== sizeBytes)
        this.#files.use(path, (descriptor) => ftruncateSync(descriptor, Number(sizeBytes)))
      return 'present'
    }
    if (this.#dryRun) return 'new'
    if (stats) this.#removeInTheWay(path, stats)
    const descriptor = openSync(this.#at(path), makeFile, 0o600)
    this.#files.add(path, descriptor)
    if (sizeBytes > 0n) ftruncateSync(descriptor, Number(sizeBytes))
    this.#fresh.add(path.toString('latin1'))
    return 'new'
  }

  #openForWriting(path: Buffer, stats: BigIntStats): void {
    if (!this.#privileged && (stats.mode & 0o600n) !== 0o600n)
      this.#withPathOnly(path, (node) => chmodSync(node, Number(stats.mode & 0o7777n) | 0o600))
    this.#files.use(path, () => undefined)
  }

  #make(path: Buffer, entry: TreeEntry): void {
    const at = this.#at(path)
    switch (entry.kind) {
      case 'symlink':
        return symlinkSync(entry.target, at)
      case 'dev':
        return this.#native.makeNode(at, constants.S_IFBLK | 0o600, entry.rdev)
      case 'chardev':
        return this.#native.makeNode(at, constants.S_IFCHR | 0o600, entry.rdev)
      case 'fifo':
        return this.#native.makeNode(at, constants.S_IFIFO | 0o600, 0n)
      case 'socket':
        return this.#native.makeNode(at, constants.S_IFSOCK | 0o600, 0n)
      case 'file':
      case 'dir':
        return assert(false, 'files and directories are made elsewhere')
      default:
        entry satisfies never
    }
  }

  /** Whether the policy leaves what is there alone. */
  #keeps(entry: TreeEntry, stats: BigIntStats): boolean {
    if (this.#overwrite === 'never') return true
    return this.#overwrite === 'if-newer' && stats.mtimeNs >= entry.mtimeNs
  }

  #removeInTheWay(path: Buffer, stats: BigIntStats): void {
    this.#files.close(path)
    if (!stats.isDirectory()) return unlinkSync(this.#at(path))
    if (this.#removeDirectories) {
      this.#directories.closeBelow(path)
      return rmSync(this.#at(path), { recursive: true })
    }
    throw new Fault('exists', `make ${show(path)}: a directory stands there`, {
      hint: 'Move the directory away, or restore with --delete.',
    })
  }

  #setXattrs(node: Buffer, entry: TreeEntry): void {
    const wanted = new Map(entry.xattrs.map((xattr) => [xattr.name, xattr]))
    for (const { name, value } of this.#native.readXattrs(node)) {
      if (wanted.get(name)?.value.equals(value)) wanted.delete(name)
      else if (!wanted.has(name) && ownXattr.test(name)) this.#native.removeXattr(node, name)
    }
    for (const xattr of wanted.values()) this.#native.setXattr(node, xattr)
  }

  /** A set-id bit counts only together with the owner that it was set for. */
  #allowedMode(entry: TreeEntry): number {
    const own = entry.uid === process.geteuid?.() && entry.gid === process.getegid?.()
    return this.#owners || own || entry.kind === 'dir' ? entry.mode : entry.mode & ~setIdBits
  }

  /** Hands over the ways to set a node's attributes: by descriptor where there is one, never through a symlink. */
  #withNode(path: Buffer, entry: TreeEntry, work: (node: Attributed) => void): void {
    const native = this.#native
    const at = this.#at(path)
    const byPath = {
      path: at,
      chown: (uid: number, gid: number) => lchownSync(at, uid, gid),
      chmod: (mode: number) => this.#withPathOnly(path, (node) => chmodSync(node, mode)),
      setTimes: (atimeNs: bigint, mtimeNs: bigint) => native.setTimes(at, atimeNs, mtimeNs),
    }
    if (entry.kind !== 'file') return work(byPath)
    this.#files.use(path, (descriptor) =>
      work({
        path: at,
        chown: (uid, gid) => fchownSync(descriptor, uid, gid),
        chmod: (mode) => fchmodSync(descriptor, mode),
        setTimes: (atimeNs, mtimeNs) => native.setTimesOf(descriptor, atimeNs, mtimeNs),
      }),
    )
    this.#files.close(path)
  }

  /** The node itself through a descriptor that opens nothing: a device is not woken, a symlink not followed. */
  #withPathOnly(path: Buffer, work: (node: string) => void): void {
    const descriptor = openSync(this.#at(path), pathOnly | constants.O_NOFOLLOW)
    try {
      assert(!fstatSync(descriptor).isSymbolicLink(), 'modes are set on no symlink')
      work(`/proc/self/fd/${descriptor}`)
    } finally {
      closeSync(descriptor)
    }
  }

  #inBare(path: Buffer): boolean {
    return this.#bare.has(parentOf(path).toString('latin1'))
  }

  /** What stands there now. Should somebody else be quicker in a directory of ours, making the node fails. */
  #stats(path: Buffer): BigIntStats | undefined {
    if (this.#inBare(path)) return undefined
    if (this.#dryRun && !this.#directories.has(parentOf(path))) return undefined
    return lstatSync(this.#at(path), { bigint: true, throwIfNoEntry: false })
  }

  #at(path: Buffer): Buffer {
    return this.#directories.at(path)
  }

  #doing<T>(what: string, work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw fromSystem(error, what)
    }
  }
}

type Attributed = {
  readonly path: Buffer
  readonly chown: (uid: number, gid: number) => void
  readonly chmod: (mode: number) => void
  readonly setTimes: (atimeNs: bigint, mtimeNs: bigint) => void
}

const slash = Buffer.from('/')
const zeroes = Buffer.alloc(64 * 1024)

function isAccessList({ name }: Xattr): boolean {
  return name.startsWith('system.posix_acl_')
}

function parentOf(path: Buffer): Buffer {
  return path.subarray(0, Math.max(path.lastIndexOf(0x2f), 0))
}
