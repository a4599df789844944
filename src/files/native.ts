import { createRequire } from 'node:module'
import type koffi from 'koffi'
import { Fault } from '#base/faults'
import type { Xattr } from '#change/tree'

/**
 * The system calls that node does not offer: extended attributes, times in nanoseconds, device nodes, holes,
 * names of users. Paths are bytes. All calls are short and block; failing ones throw a Node-like system error
 * (`code`, `errno`, `syscall`), which `fromSystem` classifies.
 */
export interface Native {
  /** The extended attributes in the order in which the file system lists them; none where it knows none. */
  readXattrs(path: Buffer): Xattr[]
  /** Sets one attribute of what the path names, never following a symlink. */
  setXattr(path: Buffer, xattr: Xattr): void
  removeXattr(path: Buffer, name: string): void
  /** Sets access and modification time of what the path names itself, be it a symlink. */
  setTimes(path: Buffer, atimeNs: bigint, mtimeNs: bigint): void
  /** The same for an open file. */
  setTimesOf(descriptor: number, atimeNs: bigint, mtimeNs: bigint): void
  /** Makes a fifo, a socket or a device; `mode` holds type and permissions, as `st_mode` does. */
  makeNode(path: Buffer, mode: number, device: bigint): void
  /** First offset at or behind `offset` that holds data, undefined when only a hole follows. */
  seekData(descriptor: number, offset: number): number | undefined
  /** First offset at or behind `offset` that lies in a hole; the file's end counts as one. */
  seekHole(descriptor: number, offset: number): number
  /** Deallocates a range of an open file, which then reads as zeroes; false where the file system cannot. */
  punchHole(descriptor: number, offset: number, sizeBytes: number): boolean
  /** Writes all data of the file system that holds the open file to its disk. */
  syncFileSystem(descriptor: number): Promise<void>
  userName(uid: number): string | undefined
  groupName(gid: number): string | undefined
}

const noFollow = 0x100 // AT_SYMLINK_NOFOLLOW
const currentDirectory = -100 // AT_FDCWD
const seekDataWhence = 3
const seekHoleWhence = 4
const keepSizePunchHole = 3 // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE

/** The kernel's own limits for names and values, limits.h: XATTR_LIST_MAX and XATTR_SIZE_MAX. */
const listSizeMax = 65_536
const valueSizeMax = 65_536
/** Users with an absurdly long record stay nameless. */
const accountSizeMax = 65_536

type Koffi = typeof koffi
type KoffiFunction = ReturnType<ReturnType<Koffi['load']>['func']>

let loaded: { readonly native?: Native; readonly error?: unknown } | undefined

/** The native calls; throws `unsupported` where the foreign-function library cannot be loaded. */
export function loadNative(): Native {
  loaded ??= tryLoad()
  if (loaded.native) return loaded.native
  throw new Fault('unsupported', `load the native file calls for ${process.platform}`, {
    hint: 'Reinstall with `npm ci` and optional dependencies; file trees need Linux and the package koffi.',
    cause: loaded.error,
  })
}

function tryLoad(): { readonly native?: Native; readonly error?: unknown } {
  if (process.platform !== 'linux') return {}
  try {
    return { native: new LinuxNative() }
  } catch (error) {
    return { error }
  }
}

class LinuxNative implements Native {
  readonly #koffi: Koffi
  readonly #call: Readonly<Record<keyof typeof declarations, KoffiFunction>>
  readonly #errnoNames: ReadonlyMap<number, string>
  readonly #list = Buffer.allocUnsafeSlow(listSizeMax)
  readonly #value = Buffer.allocUnsafeSlow(valueSizeMax)
  readonly #times = Buffer.allocUnsafeSlow(32)

  constructor() {
    // Loaded on first use only: commands that touch no files need no foreign-function library.
    this.#koffi = createRequire(import.meta.url)('koffi') as Koffi
    const library = this.#koffi.load(null)
    this.#call = Object.fromEntries(
      Object.entries(declarations).map(([name, text]) => [name, library.func(text)]),
    ) as Record<keyof typeof declarations, KoffiFunction>
    this.#errnoNames = new Map(
      Object.entries(this.#koffi.os.errno).map(([name, number]) => [number, name]),
    )
  }

  readXattrs(path: Buffer): Xattr[] {
    const file = terminated(path)
    const size = Number(this.#call.llistxattr(file, this.#list, listSizeMax))
    if (size === 0) return []
    if (size < 0) {
      const error = this.#error('llistxattr', path)
      if (error.code === 'ENOTSUP' || error.code === 'EOPNOTSUPP') return []
      throw error
    }
    const names = this.#list.toString('utf8', 0, size - 1).split('\0')
    const xattrs: Xattr[] = []
    for (const name of names) {
      const length = Number(this.#call.lgetxattr(file, terminated(name), this.#value, valueSizeMax))
      if (length >= 0) xattrs.push({ name, value: Buffer.from(this.#value.subarray(0, length)) })
      else if (this.#code() !== 'ENODATA') throw this.#error('lgetxattr', path)
    }
    return xattrs
  }

  setXattr(path: Buffer, { name, value }: Xattr): void {
    const done = this.#call.lsetxattr(terminated(path), terminated(name), value, value.length, 0)
    if (done !== 0) throw this.#error(`lsetxattr ${name}`, path)
  }

  removeXattr(path: Buffer, name: string): void {
    if (this.#call.lremovexattr(terminated(path), terminated(name)) !== 0)
      throw this.#error(`lremovexattr ${name}`, path)
  }

  setTimes(path: Buffer, atimeNs: bigint, mtimeNs: bigint): void {
    const times = this.#timespecs(atimeNs, mtimeNs)
    if (this.#call.utimensat(currentDirectory, terminated(path), times, noFollow) !== 0)
      throw this.#error('utimensat', path)
  }

  setTimesOf(descriptor: number, atimeNs: bigint, mtimeNs: bigint): void {
    if (this.#call.futimens(descriptor, this.#timespecs(atimeNs, mtimeNs)) !== 0)
      throw this.#error('futimens')
  }

  makeNode(path: Buffer, mode: number, device: bigint): void {
    if (this.#call.mknod(terminated(path), mode, device) !== 0) throw this.#error('mknod', path)
  }

  seekData(descriptor: number, offset: number): number | undefined {
    const found = Number(this.#call.lseek(descriptor, offset, seekDataWhence))
    if (found >= 0) return found
    // ENXIO: nothing but a hole up to the end, lseek(2).
    if (this.#code() === 'ENXIO') return undefined
    throw this.#error('lseek')
  }

  seekHole(descriptor: number, offset: number): number {
    const found = Number(this.#call.lseek(descriptor, offset, seekHoleWhence))
    if (found < 0) throw this.#error('lseek')
    return found
  }

  punchHole(descriptor: number, offset: number, sizeBytes: number): boolean {
    if (this.#call.fallocate(descriptor, keepSizePunchHole, offset, sizeBytes) === 0) return true
    const code = this.#code()
    if (code === 'ENOTSUP' || code === 'EOPNOTSUPP' || code === 'ENOSYS') return false
    throw this.#error('fallocate')
  }

  async syncFileSystem(descriptor: number): Promise<void> {
    // On another thread: it may take as long as the disk needs for all that is not yet written.
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    this.#call.syncfs.async(descriptor, (error: Error | null, result: number) =>
      error ? reject(error) : resolve(result),
    )
    if ((await promise) !== 0) throw new Fault('io', `sync the file system of the target`)
  }

  userName(uid: number): string | undefined {
    return this.#account('getpwuid_r', uid)
  }

  groupName(gid: number): string | undefined {
    return this.#account('getgrgid_r', gid)
  }

  /** Both records start with the pointer to the name: pwd.h, grp.h. */
  #account(call: 'getpwuid_r' | 'getgrgid_r', id: number): string | undefined {
    const record = Buffer.alloc(128)
    const text = Buffer.alloc(accountSizeMax)
    const found = [null] as unknown[]
    if (this.#call[call](id, record, text, text.length, found) !== 0 || !found[0]) return undefined
    // The C library lays the name into `text`; where exactly is told by the pointer in the record.
    const start = Number(record.readBigUInt64LE(0) - BigInt(this.#koffi.address(text)))
    if (start < 0 || start >= text.length) return undefined
    return text.toString('utf8', start, text.indexOf(0, start))
  }

  #timespecs(atimeNs: bigint, mtimeNs: bigint): Buffer {
    for (const [at, ns] of [
      [0, atimeNs],
      [16, mtimeNs],
    ] as const) {
      const fraction = ((ns % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
      this.#times.writeBigInt64LE((ns - fraction) / 1_000_000_000n, at)
      this.#times.writeBigInt64LE(fraction, at + 8)
    }
    return this.#times
  }

  #code(): string {
    return this.#errnoNames.get(this.#koffi.errno()) ?? `E${this.#koffi.errno()}`
  }

  #error(syscall: string, path?: Buffer): NodeJS.ErrnoException {
    const code = this.#code()
    const where = path ? ` '${path.toString()}'` : ''
    return Object.assign(new Error(`${code}: ${syscall}${where}`), {
      code,
      syscall,
      ...(path && { path: path.toString() }),
    })
  }
}

const declarations = {
  llistxattr: 'intptr_t llistxattr(const uint8_t *path, _Out_ uint8_t *list, size_t size)',
  lgetxattr:
    'intptr_t lgetxattr(const uint8_t *path, const uint8_t *name, _Out_ uint8_t *value, size_t size)',
  lsetxattr:
    'int lsetxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
  lremovexattr: 'int lremovexattr(const uint8_t *path, const uint8_t *name)',
  utimensat: 'int utimensat(int directory, const uint8_t *path, const uint8_t *times, int flags)',
  futimens: 'int futimens(int descriptor, const uint8_t *times)',
  mknod: 'int mknod(const uint8_t *path, uint32_t mode, uint64_t device)',
  lseek: 'int64_t lseek(int descriptor, int64_t offset, int whence)',
  fallocate: 'int fallocate(int descriptor, int mode, int64_t offset, int64_t size)',
  syncfs: 'int syncfs(int descriptor)',
  getpwuid_r:
    'int getpwuid_r(uint32_t id, uint8_t *record, uint8_t *text, size_t size, _Out_ void **found)',
  getgrgid_r:
    'int getgrgid_r(uint32_t id, uint8_t *record, uint8_t *text, size_t size, _Out_ void **found)',
}

function terminated(text: Buffer | string): Buffer {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text
  const whole = Buffer.allocUnsafe(bytes.length + 1)
  bytes.copy(whole)
  whole[bytes.length] = 0
  return whole
}
