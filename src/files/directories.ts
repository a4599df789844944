import { closeSync, constants, existsSync, openSync } from 'node:fs'
import { Fault } from '#base/faults'
import { show } from './byte-text.ts'

const openMax = 256
const openFlags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/**
 * The directories of a tree below one root, held open. A name is looked up in the descriptor of its own
 * directory, which was reached from the root one component at a time and never through a symlink: whoever swaps
 * a directory for a symlink meanwhile diverts nothing.
 */
export class Directories {
  readonly #root: string
  /** In the order of last use; keys hold one character a byte. */
  readonly #open = new Map<string, number>()
  readonly #byDescriptor: boolean

  constructor(root: string) {
    this.#root = root
    // Where /proc is not mounted, plain paths have to do; each directory was still opened without symlinks.
    this.#byDescriptor = existsSync('/proc/self/fd')
  }

  /** A path for system calls that leads to the node by way of its directory's descriptor. */
  at(path: Buffer): Buffer {
    const end = path.lastIndexOf(0x2f)
    const directory = this.path(path.subarray(0, Math.max(end, 0)))
    return Buffer.concat([Buffer.from(`${directory}/`, 'latin1'), path.subarray(end + 1)])
  }

  /** A path for system calls of the directory itself, one character a byte. */
  path(directory: Buffer): string {
    const descriptor = this.descriptor(directory)
    if (this.#byDescriptor) return `/proc/self/fd/${descriptor}`
    const root = Buffer.from(this.#root).toString('latin1')
    return directory.length === 0 ? root : `${root}/${directory.toString('latin1')}`
  }

  descriptor(directory: Buffer): number {
    return this.#descriptor(directory.toString('latin1'))
  }

  /** Whether the directory is there, and no symlink on the way to it. */
  has(directory: Buffer): boolean {
    try {
      this.descriptor(directory)
      return true
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'refused') return false
      throw error
    }
  }

  close(directory: Buffer): void {
    const key = directory.toString('latin1')
    const descriptor = this.#open.get(key)
    if (descriptor === undefined) return
    this.#open.delete(key)
    closeSync(descriptor)
  }

  /** Closes the directory and all below it, before they are removed. */
  closeBelow(directory: Buffer): void {
    const key = directory.toString('latin1')
    for (const open of Array.from(this.#open.keys()))
      if (open === key || open.startsWith(`${key}/`)) this.close(Buffer.from(open, 'latin1'))
  }

  closeAll(): void {
    for (const descriptor of this.#open.values()) closeSync(descriptor)
    this.#open.clear()
  }

  #descriptor(key: string): number {
    const known = this.#open.get(key)
    if (known !== undefined) {
      this.#open.delete(key)
      this.#open.set(key, known)
      return known
    }
    const descriptor = key === '' ? this.#openRoot() : this.#openChild(key)
    this.#open.set(key, descriptor)
    this.#evict()
    return descriptor
  }

  /** The root's own path is the user's: it may well lead through symlinks. */
  #openRoot(): number {
    return openSync(this.#root, constants.O_RDONLY | constants.O_DIRECTORY)
  }

  #openChild(key: string): number {
    const path = this.at(Buffer.from(key, 'latin1'))
    try {
      return openSync(path, openFlags)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ELOOP' && code !== 'ENOTDIR') throw error
      const name = show(Buffer.from(key, 'latin1'))
      throw new Fault('refused', `enter ${name}: it is no directory, or a symlink`, {
        hint: 'Something changed the target while it was written to, or stands in its way.',
        cause: error,
      })
    }
  }

  #evict(): void {
    if (this.#open.size <= openMax) return
    for (const [key, descriptor] of this.#open) {
      if (key === '') continue
      this.#open.delete(key)
      closeSync(descriptor)
      return
    }
  }
}
