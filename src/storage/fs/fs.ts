import { constants } from 'node:fs'
import { type FileHandle, link, lstat, open, readdir, rename, stat, unlink } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Fault, isFault } from '#base/faults'
import { randomHex } from '#base/ids'
import { checkKey, checkPrefix, checkRange, isKey, reservedName } from '../key.ts'
import {
  fromFileSystem,
  makeFolder,
  readInto,
  syncFolder,
  system,
  unlinkQuietly,
  writeAll,
} from './file.ts'
import type {
  GetOptions,
  ListOptions,
  ObjectInfo,
  PutOptions,
  Storage,
  StreamOptions,
} from '../storage.ts'

const temporaryName = `${reservedName}tmp-`
/** A temporary file that nobody has written to for so long belongs to a writer that died. */
const staleAfterMs = 24 * 3600 * 1000
const chunkBytes = 256 * 1024
/** Files of a directory that are asked for their size at the same time. */
const statWidth = 32

export type FsOptions = {
  /** Make the folder if it is not there: only for whoever begins a store. */
  readonly create?: boolean | undefined
  readonly now?: (() => number) | undefined
}

/**
 * Object storage in a folder. Throws `missing` when the folder is not there and was not to be made:
 * a disk that is not mounted must not look like an empty store.
 */
export async function openFsStorage(path: string, options: FsOptions = {}): Promise<Storage> {
  const root = resolve(path)
  const url = pathToFileURL(root).href
  if (options.create) await makeFolder(root, `make ${url}`)
  const facts = await system(`open ${url}`, () => stat(root)).catch((error: unknown) => {
    throw isFault(error, 'missing')
      ? new Fault('missing', `open ${url}: no such folder`, {
          hint: 'Mount the disk, or make the folder if the store shall begin here.',
          cause: error,
        })
      : error
  })
  if (!facts.isDirectory()) throw new Fault('usage', `open ${url}: not a folder`)
  return new FsStorage({
    root,
    url,
    inode: facts.ino,
    conditionalPut: await canLink(root),
    now: options.now ?? Date.now,
  })
}

class FsStorage implements Storage {
  readonly url: string
  readonly can: Storage['can']
  readonly #root: string
  readonly #inode: number
  readonly #now: () => number

  constructor(parts: {
    readonly root: string
    readonly url: string
    readonly inode: number
    readonly conditionalPut: boolean
    readonly now: () => number
  }) {
    this.url = parts.url
    this.can = { conditionalPut: parts.conditionalPut, retention: false }
    this.#root = parts.root
    this.#inode = parts.inode
    this.#now = parts.now
  }

  async put(
    key: string,
    parts: Uint8Array | readonly Uint8Array[],
    options: PutOptions = {},
  ): Promise<void> {
    const list = parts instanceof Uint8Array ? [parts] : parts
    return this.#write(key, options, async (write) => {
      options.signal?.throwIfAborted()
      for (const part of list) await write(part)
    })
  }

  async putStream(
    key: string,
    source: AsyncIterable<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    return this.#write(key, options, async (write) => {
      for await (const part of source) {
        options.signal?.throwIfAborted()
        await write(part)
      }
    })
  }

  async get(key: string, options: GetOptions = {}): Promise<Buffer> {
    checkKey(key)
    options.signal?.throwIfAborted()
    const what = `${key} from ${this.url}`
    return system(`read ${what}`, async () => {
      await using file = await this.#openObject(key)
      const { size } = await file.stat()
      const { start = 0, end = size } = options
      checkRange(what, { start, end }, size)
      const bytes = Buffer.allocUnsafe(end - start)
      const read = await readInto(file, bytes, start)
      checkRange(what, { start: 0, end: bytes.length }, read)
      return bytes
    })
  }

  async *stream(key: string, options: StreamOptions = {}): AsyncGenerator<Buffer, void, void> {
    checkKey(key)
    const { start = 0, signal } = options
    const what = `${key} from ${this.url}`
    await using file = await system(`read ${what}`, () => this.#openObject(key))
    const { size } = await file.stat()
    checkRange(what, { start, end: Math.max(start, size) }, size)
    for (let at = start; at < size; ) {
      signal?.throwIfAborted()
      const bytes = Buffer.allocUnsafe(Math.min(chunkBytes, size - at))
      const offset = at
      const read = await system(`read ${what}`, () => readInto(file, bytes, offset))
      checkRange(what, { start: at, end: at + bytes.length }, at + read)
      at += read
      yield bytes
    }
  }

  async stat(
    key: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<ObjectInfo | undefined> {
    checkKey(key)
    options.signal?.throwIfAborted()
    const found = await this.#stat(key)
    // No file in a folder that has gone away is no news of the file.
    if (!found) await this.#checkRoot(`stat ${key}`)
    return found
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, void> {
    checkPrefix(prefix)
    const { after = '', signal } = options
    await this.#checkRoot(`list ${prefix}`)
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1)
    for await (const keys of this.#walk(folder, { prefix, after, signal })) {
      for (let at = 0; at < keys.length; at += statWidth) {
        signal?.throwIfAborted()
        const some = keys.slice(at, at + statWidth)
        for (const info of await Promise.all(some.map((key) => this.#stat(key)))) {
          // One that was deleted in the meantime is not there.
          if (info) yield info
        }
      }
    }
    // The folder may have been unmounted on the way: then what was found is not all.
    await this.#checkRoot(`list ${prefix}`)
  }

  async delete(
    key: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    checkKey(key)
    options.signal?.throwIfAborted()
    if (!(await this.stat(key))) return
    const path = join(this.#root, key)
    try {
      await system(`delete ${key} from ${this.url}`, async () => {
        await unlink(path)
        await syncFolder(dirname(path))
      })
    } catch (error) {
      // Somebody else deleted it at the same moment.
      if (!isFault(error, 'missing')) throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // No handle outlives its call.
  }

  /**
   * Writes a temporary file beside the place, makes it durable, and only then gives it its name.
   */
  async #write(
    key: string,
    options: PutOptions,
    fill: (write: (part: Uint8Array) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    checkKey(key)
    const doing = `put ${key} to ${this.url}`
    this.#checkCan(doing, options)
    const path = join(this.#root, key)
    const folder = dirname(path)
    if (options.ifAbsent && (await this.#stat(key))) {
      throw new Fault('exists', `${doing}: object is there already`)
    }
    const temporary = join(folder, temporaryName + randomHex(12))
    const file = await this.#create(temporary, doing)
    try {
      try {
        await fill((part) => system(doing, () => writeAll(file, part)))
        await system(doing, () => file.sync())
      } finally {
        await file.close()
      }
      await name(temporary, path, { doing, ifAbsent: options.ifAbsent ?? false })
    } catch (error) {
      await unlinkQuietly(temporary)
      throw error
    }
    await system(doing, () => syncFolder(folder))
  }

  /** Opens a new file, making its folder when it is the first one there. */
  async #create(path: string, doing: string): Promise<FileHandle> {
    const flags = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY
    return system(doing, async () => {
      try {
        return await open(path, flags, 0o600)
      } catch (error) {
        if (!isFault(fromFileSystem(error, doing), 'missing')) throw error
        await this.#checkRoot(doing)
        await makeFolder(dirname(path), doing)
        return open(path, flags, 0o600)
      }
    })
  }

  async #openObject(key: string): Promise<FileHandle> {
    // A store holds plain files only: a link could lead out of it.
    const file = await open(join(this.#root, key), constants.O_RDONLY | constants.O_NOFOLLOW)
    const facts = await file.stat()
    if (facts.isFile()) return file
    await file.close()
    throw new Fault('missing', `read ${key} from ${this.url}: not a plain file`)
  }

  async #stat(key: string): Promise<ObjectInfo | undefined> {
    try {
      const doing = `stat ${key} in ${this.url}`
      const facts = await system(doing, () => lstat(join(this.#root, key)))
      if (!facts.isFile()) return undefined
      return { key, sizeBytes: facts.size, modifiedMs: Math.floor(facts.mtimeMs) }
    } catch (error) {
      if (isFault(error, 'missing')) return undefined
      throw error
    }
  }

  /**
   * Yields the keys below a folder, sorted, one run of files at a time. A folder sorts as its name
   * with the `/`, so that keys come in the order of whole keys: `a-b`, then `a/b`. Holds one
   * folder's names a level.
   */
  async *#walk(
    folder: string,
    wanted: {
      readonly prefix: string
      readonly after: string
      readonly signal: AbortSignal | undefined
    },
  ): AsyncGenerator<string[], void, void> {
    wanted.signal?.throwIfAborted()
    let files: string[] = []
    for (const key of await this.#names(folder)) {
      if (key.endsWith('/')) {
        const passed = wanted.after >= key && !wanted.after.startsWith(key)
        if (passed || !(key.startsWith(wanted.prefix) || wanted.prefix.startsWith(key))) continue
        if (files.length > 0) yield files
        files = []
        yield* this.#walk(key, wanted)
      } else if (key.startsWith(wanted.prefix) && key > wanted.after) {
        files.push(key)
      }
    }
    if (files.length > 0) yield files
  }

  /** The keys of a folder's files and, ending with `/`, of its folders, sorted. */
  async #names(folder: string): Promise<string[]> {
    const path = join(this.#root, folder)
    const doing = `list ${folder} in ${this.url}`
    const names: string[] = []
    try {
      for (const entry of await system(doing, () => readdir(path, { withFileTypes: true }))) {
        if (entry.name.startsWith(temporaryName)) await this.#sweep(join(path, entry.name))
        if (!isKey(folder + entry.name)) continue
        if (entry.isFile()) names.push(folder + entry.name)
        else if (entry.isDirectory()) names.push(`${folder}${entry.name}/`)
      }
    } catch (error) {
      // Nobody has put anything there yet; whether the root itself is there is asked before and
      // after.
      if (!isFault(error, 'missing')) throw error
    }
    return names.toSorted()
  }

  /** Removes what a writer left behind that died. */
  async #sweep(path: string): Promise<void> {
    try {
      const { mtimeMs } = await lstat(path)
      if (this.#now() - mtimeMs > staleAfterMs) await unlink(path)
    } catch (error) {
      // Another sweeper was faster, or this process may only read: both leave the listing right.
      if (!isFault(fromFileSystem(error, `sweep ${path}`), 'missing', 'denied')) throw error
    }
  }

  /**
   * Throws when the folder is not there, or is another than at the opening: below a disk that was
   * unmounted stands an empty folder of the same name. The device is not compared, since a network
   * disk may come back with another.
   */
  async #checkRoot(doing: string): Promise<void> {
    const gone = (cause?: unknown) =>
      new Fault('unreachable', `${doing} in ${this.url}: folder has gone`, {
        hint: 'The folder was there before: see whether its disk is still mounted.',
        cause,
      })
    const facts = await stat(this.#root).catch((error: unknown) => {
      throw gone(error)
    })
    if (facts.ino !== this.#inode) throw gone()
  }

  #checkCan(doing: string, options: PutOptions): void {
    if (options.ifAbsent && !this.can.conditionalPut) {
      const hint = 'The file system knows no hard links.'
      throw new Fault('unsupported', `${doing}: no conditional put here`, { hint })
    }
    if (options.retainUntilMs !== undefined) {
      throw new Fault('unsupported', `${doing}: no retention on a file system`)
    }
  }
}

/** Gives a finished temporary file its name. */
async function name(
  temporary: string,
  path: string,
  { doing, ifAbsent }: { readonly doing: string; readonly ifAbsent: boolean },
): Promise<void> {
  try {
    await system(doing, () => (ifAbsent ? link(temporary, path) : rename(temporary, path)))
  } catch (error) {
    if (!isFault(error, 'missing')) throw error
    // Our own file has gone: somebody's clock has stepped, and he took it for one left behind.
    const taken = `${doing}: temporary file was removed by another process`
    throw new Fault('conflict', taken, { recovery: 'retry', cause: error })
  }
  if (ifAbsent) await system(doing, () => unlink(temporary))
}

const noLinkCodes = ['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']

/**
 * Whether a name can be given only if it is free: tried, since not every file system has hard
 * links.
 */
async function canLink(root: string): Promise<boolean> {
  const path = join(root, temporaryName + randomHex(12))
  const other = join(root, temporaryName + randomHex(12))
  try {
    await (await open(path, 'wx', 0o600)).close()
    await link(path, other)
    return true
  } catch (error) {
    const fault = fromFileSystem(error, `try hard links in ${root}`)
    const code = (error as NodeJS.ErrnoException).code ?? ''
    // Where nothing can be written now, nothing can be promised either.
    if (isFault(fault, 'denied', 'full') || noLinkCodes.includes(code)) return false
    throw fault
  } finally {
    await unlinkQuietly(path)
    await unlinkQuietly(other)
  }
}
