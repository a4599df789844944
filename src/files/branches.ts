import { lstatSync, statSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path/posix'
import { Fault, fromSystem } from '#base/faults'
import { type ByteText, bytesOf, child, namesOf, show, textOf } from './byte-text.ts'

/** A place in the tree that the given paths span: above them their parents, at the tips what was asked for. */
export type Branch = {
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

/**
 * The tree that the paths span, laid out as restic does: the components of each path as given are its directories.
 * Throws `missing` when none of the paths is there.
 */
export function plantBranches(paths: readonly Buffer[], workingDirectory: Buffer): Branch {
  const root: Branch = {
    path: '/',
    target: false,
    covered: false,
    device: undefined,
    base: '/',
    children: new Map(),
  }
  const working = textOf(workingDirectory)
  let spreads = 0
  for (const path of paths) {
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
    throw new Fault('missing', `read ${paths.map(show).join(', ')}: nothing is there`)
  return root
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
  if (branch.target && branch.children.size > 0) expand(branch)
  for (const each of branch.children.values()) prune(each)
}

function expand(branch: Branch): void {
  const names = namesIfReadable(branch)
  // As one path again, it is met by the walk, which tells what is wrong with it.
  if (!names) return branch.children.clear()
  branch.target = false
  const { base, device } = branch
  for (const name of names) {
    const known = branch.children.get(name)
    if (known?.target) continue
    const children = known?.children ?? new Map<ByteText, Branch>()
    const path = child(branch.path, name)
    const covered = { path, target: true, covered: true, device, base, children }
    branch.children.set(name, covered)
  }
}

function namesIfReadable(branch: Branch): ByteText[] | undefined {
  try {
    return namesOf(bytesOf(branch.path))
  } catch {
    return undefined
  }
}

function anyTargetExists(branch: Branch): boolean {
  if (branch.target) return lstatSync(bytesOf(branch.path), { throwIfNoEntry: false }) !== undefined
  return [...branch.children.values()].some(anyTargetExists)
}
