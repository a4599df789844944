import {
  constants,
  lstatSync,
  openSync,
  closeSync,
  readSync,
  readlinkSync,
  statSync,
} from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { Fault, fromSystem } from '#base/faults'
import type { Hole, TreeEntry, TreeEvent, Xattr } from '#change/tree'
import { type Branch, plantBranches } from './branches.ts'
import { type ByteText, bytesOf, child, namesOf, show, textOf } from './byte-text.ts'
import type { Native } from './native.ts'
import { type Patterns, patternText } from './patterns.ts'

/** A file whose presence leaves out its directory's other contents; it counts when it starts with `header`. */
export type Marker = { readonly name: string; readonly header?: string | undefined }

/** What is walked, and what is left out. */
export type ScanRules = {
  /** Absolute or relative to the working directory. */
  readonly paths: readonly Buffer[]
  readonly workingDirectory: Buffer
  readonly excluded: Patterns
  readonly markers: readonly Marker[]
  readonly largerThanBytes?: bigint | undefined
  readonly oneFileSystem: boolean
  /** Restic leaves sockets out: they mean nothing once their server is gone. */
  readonly sockets: boolean
  /** Keeps the true access times; else they equal the modification times, so that reading changes no tree. */
  readonly accessTimes: boolean
}

/** Smaller holes are read like data; of so many in one file, the rest is. */
const holeBytesMin = 8 * 1024 * 1024
const holesMax = 4096

/** A directory that is being walked. */
type Frame = {
  readonly path: ByteText
  readonly names: readonly ByteText[]
  next: number
  readonly branch: Branch | undefined
  /** Of the directory, and of the path asked for that led here. */
  readonly device: bigint
  readonly targetDevice: bigint
  markedOut: boolean | undefined
}

/**
 * Walks the paths as one tree, laid out as restic does: the components of each path as given are its directories,
 * parents of what was asked for bear their own attributes. Blocks; runs in a worker thread.
 * Throws `missing` when none of the paths is there; one that is not there beside others is a trouble. What
 * vanishes between the listing of its directory and its turn is passed over.
 */
export function* scan(rules: ScanRules, native: Native): Generator<TreeEvent, void, void> {
  yield* new Scanner(rules, native).run()
}

class Scanner {
  readonly #rules: ScanRules
  readonly #native: Native
  readonly #users = new Map<number, string | undefined>()
  readonly #groups = new Map<number, string | undefined>()

  constructor(rules: ScanRules, native: Native) {
    this.#rules = rules
    this.#native = native
  }

  *run(): Generator<TreeEvent, void, void> {
    const root = plantBranches(this.#rules.paths, this.#rules.workingDirectory)
    const frames: Frame[] = [frameOf(root, -1n, -1n)]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const name = frame.names[frame.next++]
      if (name === undefined) {
        frames.pop()
        if (frames.length > 0) yield { kind: 'leave' }
        continue
      }
      const entered = yield* this.#visit(frame, name)
      if (entered) frames.push(entered)
    }
  }

  /** One name of a directory; returns the directory that it turned out to be. */
  *#visit(frame: Frame, name: ByteText): Generator<TreeEvent, Frame | undefined, void> {
    const branch = frame.branch?.children.get(name)
    const path = branch?.path ?? child(frame.path, name)
    if (branch && !branch.target) return yield* this.#enterBranch(frame, branch, name)
    const asked = branch?.covered === false
    // What was asked for by its own name is taken; the rules hold for what is in it.
    if (!asked && this.#excludedByName(path)) return undefined
    const bytes = bytesOf(path)
    try {
      const stats = lstatSync(bytes, { bigint: true, throwIfNoEntry: false })
      if (!stats) {
        if (asked)
          yield trouble(bytes, new Fault('missing', `read ${show(bytes)}: it is not there`))
        return undefined
      }
      const device = asked ? stats.dev : branch?.device
      if (device !== undefined) frame = { ...frame, targetDevice: device, device }
      if (!asked && this.#excludedByStats(frame, path, stats)) return undefined
      return yield* this.#emit(frame, name, bytes, stats)
    } catch (error) {
      if (asked || !isGone(error)) yield trouble(bytes, fromSystem(error, `read ${show(bytes)}`))
      return undefined
    }
  }

  *#emit(
    frame: Frame,
    name: ByteText,
    path: Buffer,
    stats: BigIntStats,
  ): Generator<TreeEvent, Frame | undefined, void> {
    if (stats.isSocket() && !this.#rules.sockets) return undefined
    const names = stats.isDirectory() ? namesOf(path) : []
    let xattrs: Xattr[] = []
    try {
      xattrs = this.#native.readXattrs(path)
    } catch (error) {
      if (isGone(error)) return undefined
      yield trouble(path, fromSystem(error, `read the extended attributes of ${show(path)}`))
    }
    const entry = this.#entry(bytesOf(name), path, stats, xattrs)
    if (entry.kind === 'dir') {
      yield { kind: 'enter', entry, path }
      const { targetDevice } = frame
      const device = stats.dev
      return {
        path: textOf(path),
        names,
        next: 0,
        branch: undefined,
        device,
        targetDevice,
        markedOut: undefined,
      }
    }
    if (entry.kind !== 'file') yield { kind: 'node', entry, path }
    else {
      const sparse = stats.size >= holeBytesMin && stats.blocks * 512n < stats.size
      const holes = sparse ? this.#holes(path, Number(stats.size)) : undefined
      yield { kind: 'node', entry, path, content: { kind: 'path', path, holes } }
    }
    return undefined
  }

  /** The large holes of a file. Whoever reads the file meets the error that keeps them unknown here. */
  #holes(path: Buffer, sizeBytes: number): Hole[] | undefined {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
    let descriptor: number | undefined
    try {
      descriptor = openSync(path, flags)
      const holes: Hole[] = []
      for (let at = 0; at < sizeBytes && holes.length < holesMax; ) {
        const data = this.#native.seekData(descriptor, at) ?? sizeBytes
        if (data - at >= holeBytesMin) holes.push({ start: at, end: data })
        at = data < sizeBytes ? this.#native.seekHole(descriptor, data) : sizeBytes
      }
      return holes.length > 0 ? holes : undefined
    } catch {
      return undefined
    } finally {
      if (descriptor !== undefined) closeSync(descriptor)
    }
  }

  *#enterBranch(
    frame: Frame,
    branch: Branch,
    name: ByteText,
  ): Generator<TreeEvent, Frame | undefined, void> {
    const path = bytesOf(branch.path)
    try {
      // A parent may be reached through a symlink; in the tree it is a directory.
      const stats = statSync(path, { bigint: true })
      const entry = this.#entry(bytesOf(name), path, stats, this.#native.readXattrs(path))
      yield { kind: 'enter', entry, path }
      return frameOf(branch, stats.dev, branch.covered ? frame.targetDevice : stats.dev)
    } catch (error) {
      yield trouble(path, fromSystem(error, `read ${show(path)}`))
      return undefined
    }
  }

  #entry(name: Buffer, path: Buffer, stats: BigIntStats, xattrs: Xattr[]): TreeEntry {
    const uid = Number(stats.uid)
    const gid = Number(stats.gid)
    const attributes = {
      name,
      mode: Number(stats.mode & 0o7777n),
      mtimeNs: stats.mtimeNs,
      atimeNs: this.#rules.accessTimes ? stats.atimeNs : stats.mtimeNs,
      ctimeNs: stats.ctimeNs,
      uid,
      gid,
      user: remember(this.#users, uid, () => this.#native.userName(uid)),
      group: remember(this.#groups, gid, () => this.#native.groupName(gid)),
      inode: stats.ino,
      device: stats.dev,
      links: Number(stats.nlink),
      xattrs,
    }
    if (stats.isFile()) return { ...attributes, kind: 'file', sizeBytes: stats.size }
    if (stats.isDirectory()) return { ...attributes, kind: 'dir' }
    if (stats.isSymbolicLink())
      return { ...attributes, kind: 'symlink', target: readlinkSync(path, { encoding: 'buffer' }) }
    if (stats.isBlockDevice()) return { ...attributes, kind: 'dev', rdev: stats.rdev }
    if (stats.isCharacterDevice()) return { ...attributes, kind: 'chardev', rdev: stats.rdev }
    return { ...attributes, kind: stats.isFIFO() ? 'fifo' : 'socket' }
  }

  #excludedByName(path: ByteText): boolean {
    return (
      this.#rules.excluded.count > 0 && this.#rules.excluded.matches(patternText(bytesOf(path)))
    )
  }

  #excludedByStats(frame: Frame, path: ByteText, stats: BigIntStats): boolean {
    const { largerThanBytes, oneFileSystem } = this.#rules
    const directory = stats.isDirectory()
    if (!directory && largerThanBytes !== undefined && stats.size > largerThanBytes) return true
    // The directory that another file system is mounted on is kept, empty.
    if (oneFileSystem && stats.dev !== frame.targetDevice)
      if (!directory || frame.device !== frame.targetDevice) return true
    return this.#excludedByMarker(frame, path)
  }

  #excludedByMarker(frame: Frame, path: ByteText): boolean {
    const { markers } = this.#rules
    if (markers.length === 0) return false
    const end = path.lastIndexOf('/')
    const name = path.slice(end + 1)
    if (frame.branch) return markers.some((marker) => this.#marks(marker, path.slice(0, end), name))
    frame.markedOut ??= markers.some((marker) => this.#marks(marker, frame.path, undefined))
    return frame.markedOut && markers.some((marker) => this.#marks(marker, frame.path, name))
  }

  /** Whether the marker stands in the directory, and is not the very file that is looked at. */
  #marks(marker: Marker, directory: ByteText, name: ByteText | undefined): boolean {
    const file = textOf(Buffer.from(marker.name))
    if (name === file) return false
    const path = bytesOf(child(directory, file))
    if (!marker.header) return lstatSync(path, { throwIfNoEntry: false }) !== undefined
    return startsWith(path, Buffer.from(marker.header))
  }
}

function frameOf(branch: Branch, device: bigint, targetDevice: bigint): Frame {
  const names = [...branch.children.keys()].sort()
  return { path: branch.path, names, next: 0, branch, device, targetDevice, markedOut: undefined }
}

function startsWith(path: Buffer, header: Buffer): boolean {
  try {
    const descriptor = openSync(path, 'r')
    try {
      const start = Buffer.alloc(header.length)
      return readSync(descriptor, start) === header.length && start.equals(header)
    } finally {
      closeSync(descriptor)
    }
  } catch (error) {
    if (isGone(error)) return false
    throw error
  }
}

function isGone(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  return code === 'ENOENT' || code === 'ENOTDIR'
}

function trouble(path: Buffer, error: unknown): TreeEvent {
  return { kind: 'trouble', path, error: error instanceof Error ? error : new Error(String(error)) }
}

function remember(
  known: Map<number, string | undefined>,
  id: number,
  look: () => string | undefined,
): string | undefined {
  if (!known.has(id)) known.set(id, look())
  return known.get(id)
}
