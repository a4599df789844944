import {
  constants,
  lstatSync,
  openSync,
  closeSync,
  readSync,
  readdirSync,
  readlinkSync,
  statSync,
} from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path/posix'
import { Fault, fromSystem } from '#base/faults'
import type { Hole, TreeEntry, TreeEvent, Xattr } from '#change/tree'
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

/** How the lists of names are held and paths are built: one character a byte, which also sorts as bytes do. */
type ByteText = string

const bytesOf = (text: ByteText): Buffer => Buffer.from(text, 'latin1')
const textOf = (bytes: Buffer): ByteText => bytes.toString('latin1')

/** A place in the tree that the given paths span: above them their parents, at the tips what was asked for. */
type Branch = {
  /** Where its own attributes are read. */
  readonly path: ByteText
  /** Asked for by itself: walked whole. */
  target: boolean
  /** Not asked for itself, but lies below a path that was. */
  covered: boolean
  /** The file system of the directory that was asked for as `.` or the like, when this is an entry of it. */
  device: bigint | undefined
  /** What its first component is relative to. */
  readonly base: ByteText
  readonly children: Map<ByteText, Branch>
}

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
    const root = this.#branches()
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

  #branches(): Branch {
    const root: Branch = {
      path: '/',
      target: false,
      covered: false,
      device: undefined,
      base: '/',
      children: new Map(),
    }
    const working = textOf(this.#rules.workingDirectory)
    let spreads = 0
    for (const path of this.#rules.paths) {
      const text = clean(textOf(path))
      const { base, parts } = split(text, working)
      if (parts.length > 0) {
        plant(root, text, working)
        continue
      }
      // A path of `.` and `..` only, or `/`, stands for what is in that directory.
      const { names, device } = listed(bytesOf(base))
      for (const name of names) plant(root, join(text, name), working, device)
      spreads += 1
    }
    prune(root)
    if (spreads === 0 && !anyTargetExists(root))
      throw new Fault('missing', `read ${this.#rules.paths.map(show).join(', ')}: nothing is there`)
    return root
  }
}

function clean(path: ByteText): ByteText {
  return join(path).replace(/(.)\/$/, '$1')
}

function listed(directory: Buffer): { readonly names: ByteText[]; readonly device: bigint } {
  try {
    return { names: namesOf(directory), device: statSync(directory, { bigint: true }).dev }
  } catch (error) {
    throw fromSystem(error, `read ${show(directory)}`)
  }
}

function split(path: ByteText, working: ByteText) {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (isAbsolute(path)) return { base: '/', parts }
  const up = parts.findIndex((part) => part !== '..')
  const steps = up < 0 ? parts.length : up
  return { base: resolve(working, ...parts.slice(0, steps)), parts: parts.slice(steps) }
}

/** `device` is given for an entry of a directory that was asked for as `.` or the like. */
function plant(root: Branch, path: ByteText, working: ByteText, device?: bigint): void {
  const { base, parts } = split(path, working)
  let branch = root
  let at = base
  for (const [index, part] of parts.entries()) {
    at = child(at, part)
    const name = index === 0 ? freeName(root, part, base) : part
    let next = branch.children.get(name)
    if (!next) {
      next = {
        path: at,
        target: false,
        covered: false,
        device: undefined,
        base,
        children: new Map(),
      }
      branch.children.set(name, next)
    }
    branch = next
  }
  if (branch.target && device !== undefined) return
  branch.target = true
  branch.covered = device !== undefined
  branch.device = device
}

/** Two relative paths may begin with the same name in different directories: the later one gets a number. */
function freeName(root: Branch, name: ByteText, base: ByteText): ByteText {
  for (let number = 0; ; number++) {
    const free = number === 0 ? name : `${name}-${number}`
    const taken = root.children.get(free)
    if (!taken || taken.base === base) return free
  }
}

/** Where a path was asked for and one below it too, the upper one's entries become targets of their own. */
function prune(branch: Branch): void {
  if (branch.target && branch.children.size > 0) {
    branch.target = false
    for (const name of namesOf(bytesOf(branch.path))) {
      const path = child(branch.path, name)
      const known = branch.children.get(name)
      const { base } = branch
      if (known?.target) continue
      const children = known?.children ?? new Map<ByteText, Branch>()
      branch.children.set(name, {
        path,
        target: true,
        covered: true,
        device: undefined,
        base,
        children,
      })
    }
  }
  for (const each of branch.children.values()) prune(each)
}

function anyTargetExists(branch: Branch): boolean {
  if (branch.target) return lstatSync(bytesOf(branch.path), { throwIfNoEntry: false }) !== undefined
  return [...branch.children.values()].some(anyTargetExists)
}

function frameOf(branch: Branch, device: bigint, targetDevice: bigint): Frame {
  const names = [...branch.children.keys()].sort()
  return { path: branch.path, names, next: 0, branch, device, targetDevice, markedOut: undefined }
}

function namesOf(directory: Buffer): ByteText[] {
  return readdirSync(directory, { encoding: 'latin1' }).sort()
}

function child(directory: ByteText, name: ByteText): ByteText {
  return directory.endsWith('/') ? directory + name : `${directory}/${name}`
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

/** A path in a message, odd bytes and line ends made visible. */
export function show(path: Buffer): string {
  return JSON.stringify(patternText(path))
}
