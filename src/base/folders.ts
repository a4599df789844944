import { mkdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { Fault } from './faults.ts'

/**
 * Makes a folder and those above it, one by one from the deepest that is there; returns those it made, that one last.
 * Node's own recursive mkdir does not end where a file system answers "no such file" to whoever makes a folder in one
 * that exists, as /proc does. Throws node's errors, and `usage` where a file is in the way.
 */
export async function makeFolders(folder: string, mode = 0o777): Promise<string[]> {
  const missing: string[] = []
  for (let at = resolve(folder); !(await isFolder(at)); at = dirname(at)) missing.push(at)
  const made: string[] = []
  for (const one of missing.toReversed()) {
    try {
      await mkdir(one, { mode })
      made.push(one)
    } catch (error) {
      // Somebody else makes the same one.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !(await isFolder(one))) throw error
    }
  }
  return made
}

async function isFolder(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isDirectory()) return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  throw new Fault('usage', `make a folder: ${path} is a file`, { hint: 'Name another place.' })
}
