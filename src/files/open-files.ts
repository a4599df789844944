import { closeSync, constants, existsSync, openSync, read, readFileSync, write } from 'node:fs'
import { promisify } from 'node:util'
import { fromSystem } from '#base/faults'
import type { HeldFile } from '#change/tree'
import type { Directories } from './directories.ts'
import { show } from './byte-text.ts'

/** So many stay open where the system allows it: each file of a wave is then opened once. */
const openMax = 4_096
const openMin = 128
const openFlags = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK

const limitsPath = '/proc/self/limits'

type OpenFile = { readonly descriptor: number; users: number; closing: boolean }

const readAt = promisify(read)
const writeAt = promisify(write)

/** Files of a tree that are written to, some of them held open; one that is in use is never closed. */
export class OpenFiles {
  readonly #directories: Directories
  readonly #openMax = descriptorShare()
  /** In the order of last use. */
  readonly #open = new Map<string, OpenFile>()

  constructor(directories: Directories) {
    this.#directories = directories
  }

  add(path: Buffer, descriptor: number): void {
    this.#open.set(path.toString('latin1'), { descriptor, users: 0, closing: false })
    this.#evict(path.toString('latin1'))
  }

  /** Runs blocking work with the file's descriptor. */
  use<T>(path: Buffer, work: (descriptor: number) => T): T {
    return work(this.#file(path).descriptor)
  }

  async read(path: Buffer, offset: number, sizeBytes: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(sizeBytes)
    const size = await this.#using(path, 'read', async (descriptor) => {
      let done = 0
      while (done < sizeBytes) {
        const { bytesRead } = await readAt(descriptor, bytes, done, sizeBytes - done, offset + done)
        if (bytesRead === 0) break
        done += bytesRead
      }
      return done
    })
    return bytes.subarray(0, size)
  }

  async write(path: Buffer, offset: number, bytes: Uint8Array): Promise<void> {
    await this.#using(path, 'write', async (descriptor) => {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await writeAt(
          descriptor,
          bytes,
          done,
          bytes.length - done,
          offset + done,
        )
        done += bytesWritten
      }
    })
  }

  /** The file stays open until it is let go of. */
  hold(path: Buffer): HeldFile {
    try {
      const file = this.#file(path)
      file.users += 1
      return {
        descriptor: file.descriptor,
        fault: (error) => fromSystem(error, `write ${show(path)}`),
        release: () => this.#release(file),
      }
    } catch (error) {
      throw fromSystem(error, `open ${show(path)}`)
    }
  }

  close(path: Buffer): void {
    const key = path.toString('latin1')
    const file = this.#open.get(key)
    if (!file) return
    this.#open.delete(key)
    if (file.users > 0) file.closing = true
    else closeSync(file.descriptor)
  }

  closeAll(): void {
    for (const key of Array.from(this.#open.keys())) this.close(Buffer.from(key, 'latin1'))
  }

  async #using<T>(
    path: Buffer,
    doing: string,
    work: (descriptor: number) => Promise<T>,
  ): Promise<T> {
    try {
      const file = this.#file(path)
      file.users += 1
      try {
        return await work(file.descriptor)
      } finally {
        this.#release(file)
      }
    } catch (error) {
      throw fromSystem(error, `${doing} ${show(path)}`)
    }
  }

  #release(file: OpenFile): void {
    file.users -= 1
    if (file.closing && file.users === 0) closeSync(file.descriptor)
  }

  #file(path: Buffer): OpenFile {
    const key = path.toString('latin1')
    const known = this.#open.get(key)
    const descriptor = known ? -1 : openSync(this.#directories.at(path), openFlags)
    const file = known ?? { descriptor, users: 0, closing: false }
    this.#open.delete(key)
    this.#open.set(key, file)
    this.#evict(key)
    return file
  }

  /** Closes one that is not in use, nor about to be. */
  #evict(newest: string): void {
    if (this.#open.size <= this.#openMax) return
    for (const [key, file] of this.#open) {
      if (file.users > 0 || key === newest) continue
      this.#open.delete(key)
      closeSync(file.descriptor)
      return
    }
  }
}

/** A quarter of the descriptors that this process may have: the rest is for directories, the vault, and others. */
function descriptorShare(): number {
  const limits = existsSync(limitsPath) ? readFileSync(limitsPath, 'utf8') : ''
  const [, soft] = /^Max open files +(\d+|unlimited)/m.exec(limits) ?? []
  const share = soft === 'unlimited' ? openMax : Math.floor(Number(soft ?? 0) / 4)
  return Math.min(openMax, Math.max(openMin, share))
}
