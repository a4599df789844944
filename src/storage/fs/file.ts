import { constants } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Fault, fromSystem } from '#base/faults'
import { makeFolders } from '#base/folders'

const fileSystemCodes: Readonly<Record<string, 'denied' | 'missing' | 'unreachable'>> = {
  EACCES: 'denied',
  EPERM: 'denied',
  EROFS: 'denied',
  // A part of the path is a file, or the last part a link: no object of ours is there.
  ENOTDIR: 'missing',
  ELOOP: 'missing',
  // The network file system lost the file's server.
  ESTALE: 'unreachable',
  ENOTCONN: 'unreachable',
  EHOSTDOWN: 'unreachable',
}

/** Classifies what the file system said, once. */
export function fromFileSystem(error: unknown, doing: string): unknown {
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? ''
  const known = error instanceof Fault ? undefined : fileSystemCodes[code]
  return known ? new Fault(known, `${doing}: ${code}`, { cause: error }) : fromSystem(error, doing)
}

/** Runs file operations, their errors classified. */
export async function system<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw fromFileSystem(error, doing)
  }
}

/**
 * Makes a folder and those above it, durably: each new name is synced in the folder that holds it.
 */
export async function makeFolder(path: string, doing: string): Promise<void> {
  await system(doing, async () => {
    const made = await makeFolders(path, 0o700)
    for (const folder of made.toReversed()) await syncFolder(dirname(folder))
  })
}

/** Makes new and changed names in a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, constants.O_RDONLY)
  try {
    await folder.sync()
  } catch (error) {
    // Some network and user-space file systems have no sync of folders; their renames are durable
    // or nothing is.
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (!['EINVAL', 'ENOTSUP', 'ENOSYS'].includes(code)) throw error
  }
}

/** Writes all of it: one write may take less than it was given. */
export async function writeAll(file: FileHandle, part: Uint8Array): Promise<void> {
  for (let at = 0; at < part.length; ) {
    const { bytesWritten } = await file.write(part, at, part.length - at)
    at += bytesWritten
  }
}

/** Fills the buffer from that offset; returns less than its length only at the file's end. */
export async function readInto(file: FileHandle, bytes: Buffer, offset: number): Promise<number> {
  let at = 0
  while (at < bytes.length) {
    const { bytesRead } = await file.read(bytes, at, bytes.length - at, offset + at)
    if (bytesRead === 0) break
    at += bytesRead
  }
  return at
}

/**
 * Removes a file of ours that may not be there; the failure that led here is the one to be told.
 */
export async function unlinkQuietly(path: string): Promise<void> {
  await unlink(path).catch(() => undefined)
}
