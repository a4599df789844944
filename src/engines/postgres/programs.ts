import { execFile } from 'node:child_process'
import {
  access,
  chmod,
  constants,
  copyFile,
  cp,
  link,
  lchown,
  readdir,
  readFile,
  stat,
} from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { assert, Fault } from '#base/faults'
import type { BaseFacts } from '#engines'
import type { Owner } from './wal-supply.ts'

const run = promisify(execFile)
const versionTimeoutMs = 10_000

/** The server programs of one major version. */
export type Programs = { readonly folder: string; readonly version: string }

/** The major version of the server that a base was taken from. */
export function majorOf(base: BaseFacts): string {
  return base.version.split('.')[0] ?? ''
}

/** Where packages put the server programs, beside PATH. */
function usualFolders(major: string): string[] {
  return [
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/usr/local/pgsql/bin`,
    `/opt/postgresql/${major}/bin`,
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    `/usr/local/opt/postgresql@${major}/bin`,
  ]
}

/** The programs that come with the package of this platform in node_modules, where one is installed. */
function packagedFolder(major: string): string {
  const modules = path.resolve(import.meta.dirname, '../../../node_modules')
  return path.join(modules, `pg${major}-${process.platform}-${process.arch}`, 'native/bin')
}

/**
 * Finds programs of the given major version: in `serverBin` and nowhere else when it is given, else on PATH, in the usual
 * places, in node_modules. None: `refused`, with the way out.
 */
export async function findPrograms(major: string, serverBin?: string): Promise<Programs> {
  const onPath = (process.env['PATH'] ?? '').split(':').filter((folder) => folder !== '')
  const folders = serverBin
    ? [path.resolve(serverBin)]
    : [...onPath, ...usualFolders(major), packagedFolder(major)]
  const found: string[] = []
  for (const folder of folders) {
    const version = await versionOf(folder)
    if (version === undefined) continue
    if (version.split('.')[0] === major) return { folder, version }
    found.push(`${version} in ${folder}`)
  }
  const where = serverBin ? ` in ${folders.join(', ')}` : ''
  const seen = found.length === 0 ? `none were found${where}` : `found ${found.join(', ')}`
  throw new Fault('refused', `start PostgreSQL ${major}: its server programs are needed, ${seen}`, {
    hint: `Install PostgreSQL ${major} (Debian: postgresql-${major}) or name its folder with --server-bin.`,
  })
}

async function versionOf(folder: string): Promise<string | undefined> {
  const program = path.join(folder, 'postgres')
  try {
    await access(program, constants.X_OK)
    if (folder.includes(`${path.sep}node_modules${path.sep}`)) await linkLibraries(folder)
    const { stdout } = await run(program, ['--version'], { timeout: versionTimeoutMs })
    return /\(PostgreSQL\) (\d+(?:\.\d+)*)/.exec(stdout)?.[1]
  } catch (error) {
    // Not there, not ours to run, or broken: the next folder may do, and if none does, that is what is said.
    assert(error instanceof Error, 'a failed call throws an Error')
    return undefined
  }
}

// A package holds no symbolic links: the libraries' are listed in it, and made by its script, any number of times.
async function linkLibraries(folder: string): Promise<void> {
  const script = path.join(folder, '../../scripts/hydrate-symlinks.js')
  await run(process.execPath, [script], {
    cwd: path.join(folder, '../..'),
    timeout: versionTimeoutMs,
  })
}

/** The server refuses to run as root: the owner of a folder that is there, else `postgres`, else `nobody`. */
export async function serverOwner(folder: string): Promise<Owner | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const there = await stat(folder).catch(() => undefined)
  if (there && there.uid !== 0) return { uid: there.uid, gid: there.gid }
  const users = await readFile('/etc/passwd', 'utf8')
  for (const name of ['postgres', 'nobody']) {
    const fields = users
      .split('\n')
      .find((line) => line.startsWith(`${name}:`))
      ?.split(':')
    if (fields) return { uid: Number(fields[2]), gid: Number(fields[3]) }
  }
  throw new Fault('refused', 'start PostgreSQL as root: there is no user postgres or nobody')
}

/** Gives a folder and all in it to the server's user; links themselves, not what they point to. */
export async function giveTo(owner: Owner, folder: string): Promise<void> {
  await lchown(folder, owner.uid, owner.gid)
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name)
    if (entry.isDirectory()) await giveTo(owner, full)
    else await lchown(full, owner.uid, owner.gid)
  }
}

/** Whether the server's user can come to a file: a checkout in root's home cannot be entered by it. */
async function isReachable(owner: Owner, file: string): Promise<boolean> {
  for (let place = file; ; place = path.dirname(place)) {
    const { mode, uid, gid } = await stat(place)
    const shift = uid === owner.uid ? 6 : gid === owner.gid ? 3 : 0
    const wanted = place === file ? 0o4 : 0o1
    if (((mode >> shift) & wanted) === 0) return false
    if (place === path.dirname(place)) return true
  }
}

/** The file itself where the server's user can read it, else a copy of it in `folder`. */
export async function reachableFile(
  owner: Owner | undefined,
  file: string,
  folder: string,
): Promise<string> {
  if (!owner || (await isReachable(owner, file))) return file
  const copy = path.join(folder, path.basename(file))
  await link(file, copy).catch(() => copyFile(file, copy))
  await chmod(copy, 0o755)
  return copy
}

/** Server programs that the server's user can run: themselves, or a copy of the package that they came in. */
export async function reachablePrograms(
  owner: Owner | undefined,
  programs: Programs,
  folder: string,
): Promise<Programs> {
  if (!owner || (await isReachable(owner, path.join(programs.folder, 'postgres')))) return programs
  if (!programs.folder.includes(`${path.sep}node_modules${path.sep}`)) {
    throw new Fault(
      'refused',
      `start PostgreSQL from ${programs.folder}: its user cannot enter it`,
      {
        hint: 'Name programs that every user can run with --server-bin.',
      },
    )
  }
  const copy = path.join(folder, 'programs')
  await cp(path.dirname(programs.folder), copy, { recursive: true, verbatimSymlinks: true })
  return { ...programs, folder: path.join(copy, 'bin') }
}
