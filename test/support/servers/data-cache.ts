import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import path from 'node:path'
import { serverUid, giveToServerUser } from './process.ts'
import { servicesFolder } from './services.ts'

/**
 * A copy of a freshly initialised data folder at `target`. It is initialised once for each key and kept; several
 * test processes may ask at once, and the first to finish wins.
 */
export async function copyInitialised(
  key: string,
  target: string,
  initialise: (folder: string) => Promise<void> | void,
): Promise<void> {
  const kept = path.join(servicesFolder, 'cache', `${key}-u${serverUid}`)
  const running = initialising.get(kept) ?? initialiseOnce(kept, initialise)
  initialising.set(kept, running)
  await running
  copyFolder(kept, target)
}

/** What this process initialises: two servers that start at once share it. */
const initialising = new Map<string, Promise<void>>()

async function initialiseOnce(
  kept: string,
  initialise: (folder: string) => Promise<void> | void,
): Promise<void> {
  if (!existsSync(kept)) {
    const part = `${kept}.${process.pid}`
    rmSync(part, { recursive: true, force: true })
    mkdirSync(part, { recursive: true })
    giveToServerUser(part)
    try {
      await initialise(part)
      renameSync(part, kept)
    } catch (error) {
      rmSync(part, { recursive: true, force: true })
      if (!existsSync(kept)) throw error
    }
  }
}

/** A faithful copy: owners, modes, times, links, holes; sharing blocks where the file system can. */
export function copyFolder(source: string, target: string): void {
  const done = spawnSync('cp', ['-a', '--reflink=auto', source, target], { encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`cp ${source} ${target}: ${done.stderr}`)
}
