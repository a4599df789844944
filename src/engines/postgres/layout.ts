import { chmod, lstat, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { Fault } from '#base/faults'
import { makeFolders } from '#base/folders'
import type { BaseFacts, RestoreRequest } from '#engines'

/** Where the base is laid out. */
export type Layout = {
  readonly dataDir: string
  /** Where each tablespace goes, by its oid. */
  readonly tablespaces: ReadonlyMap<string, string>
  /** The server is thrown away afterwards. */
  readonly scratch?: boolean | undefined
}

/** The tablespaces of a base and where they go: to where they were, or where `remap` says (by path or by oid). */
export function placeTablespaces(
  base: BaseFacts,
  remap: Readonly<Record<string, string>>,
): ReadonlyMap<string, string> {
  const known = JSON.parse(base.details['tablespaces'] ?? '{}') as Record<string, string>
  for (const key of Object.keys(remap)) {
    if (key in known || Object.values(known).includes(key)) continue
    throw new Fault('usage', `remap ${key}: the base has no such tablespace`, {
      hint: `It has ${Object.values(known).join(', ') || 'none'}.`,
    })
  }
  return new Map(
    Object.entries(known).map(([oid, location]) => [
      oid,
      remap[location] ?? remap[oid] ?? location,
    ]),
  )
}

/** Refuses folders that hold anything, unless told otherwise; a data directory in use always. */
export async function checkPlaces(layout: Layout, force: boolean): Promise<void> {
  const pid = await runningPid(layout.dataDir)
  if (pid !== undefined) {
    throw new Fault('refused', `restore to ${layout.dataDir}: a server runs on it (pid ${pid})`, {
      hint: 'Stop it, or restore to another folder.',
    })
  }
  for (const folder of [layout.dataDir, ...layout.tablespaces.values()]) {
    const names = await namesIn(folder)
    if (names.length === 0 || force) continue
    throw new Fault('refused', `restore to ${folder}: it is not empty`, {
      hint:
        folder === layout.dataDir
          ? 'Choose another folder, or --force to overwrite it.'
          : `Map the tablespace elsewhere: --map ${folder}=/other/place, or --force to overwrite it.`,
    })
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

async function runningPid(dataDir: string): Promise<number | undefined> {
  const text = await readOptional(path.join(dataDir, 'postmaster.pid'))
  const pid = Number(text?.split('\n')[0])
  if (!Number.isInteger(pid) || pid <= 1) return undefined
  try {
    process.kill(pid, 0)
    return pid
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? pid : undefined
  }
}

export async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** What of a stored base is not laid out, and where the rest goes. `withLog`: the log comes from the archive. */
function mapData(name: string, withLog: boolean, scratch: boolean): string | undefined {
  // What was set with ALTER SYSTEM fits the source's machine, not a throw-away server.
  if (scratch && name === 'postgresql.auto.conf') return undefined
  // A base from a standby bears standby.signal, which would win over recovery.signal.
  if (['standby.signal', 'recovery.signal', 'postmaster.pid', 'postmaster.opts'].includes(name)) {
    return undefined
  }
  if (/^pg_tblspc\/\d+(?:\/|$)/.test(name)) return undefined
  // The base's own log may reach beyond the target: the archive's is cut off there. Its history files stay: without that
  // of its timeline the server would not recover along it.
  if (withLog && /^pg_wal\/[0-9A-F]{24}$/.test(name)) return undefined
  if (withLog && /^pg_wal\/archive_status\/./.test(name)) return undefined
  return name
}

/** Lays out the data directory and the tablespaces, with links to them. */
export async function layOutBase(
  request: Pick<RestoreRequest, 'files' | 'archive' | 'signal' | 'progress' | 'force'>,
  layout: Layout,
): Promise<void> {
  const { files, archive, signal, progress } = request
  const { dataDir } = layout
  progress.phase = 'lay out the base'
  // Folders above that are made on the way stay open to pass through: the server's user is another one under root.
  await makeFolders(path.dirname(dataDir))
  await makeFolders(dataDir, 0o700)
  if (request.force) await clearOld(request, layout)
  const map = (name: string) => mapData(name, archive !== undefined, layout.scratch === true)
  await files.layOut(dataDir, { signal, progress, map })
  await chmod(dataDir, 0o700)
  for (const folder of ['pg_tblspc', 'pg_wal', 'pg_wal/archive_status']) {
    await mkdir(path.join(dataDir, folder), { recursive: true, mode: 0o700 })
  }
  for (const [oid, location] of layout.tablespaces) {
    const prefix = `pg_tblspc/${oid}/`
    await makeFolders(location, 0o700)
    await files.layOut(location, {
      signal,
      progress,
      map: (name) => (name.startsWith(prefix) ? name.slice(prefix.length) : undefined),
    })
    await chmod(location, 0o700)
    const link = path.join(dataDir, 'pg_tblspc', oid)
    await rm(link, { recursive: true, force: true })
    await symlink(location, link)
  }
}

// What the base does not hold must go from a folder that is overwritten: old log would be replayed, and a relation file
// from later would bear newer pages, which the replay of its making then leaves as they are.
async function clearOld(
  request: Pick<RestoreRequest, 'files' | 'archive' | 'signal'>,
  layout: Layout,
): Promise<void> {
  const { files, archive, signal } = request
  const kept = new Set<string>()
  for await (const { path: name } of files.list({ signal })) {
    const mapped = mapData(name, archive !== undefined, layout.scratch === true)
    kept.add(mapped === undefined ? placeOf(name, layout) : path.join(layout.dataDir, mapped))
  }
  for (const folder of [layout.dataDir, ...layout.tablespaces.values()]) {
    await removeStrangers(folder, kept, signal)
  }
}

function placeOf(name: string, layout: Layout): string {
  const [, oid = '', rest = ''] = /^pg_tblspc\/(\d+)\/(.*)$/s.exec(name) ?? []
  return path.join(layout.tablespaces.get(oid) ?? '', rest)
}

async function removeStrangers(
  folder: string,
  kept: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted()
  for (const name of await namesIn(folder)) {
    const full = path.join(folder, name)
    // A link is never followed: it is taken away, and what it points to stays.
    if ((await lstat(full)).isDirectory()) await removeStrangers(full, kept, signal)
    else if (!kept.has(full)) await rm(full, { force: true })
  }
}

/** Settings that a restored server must not take over from the source: they say where that one's log went. */
const dropped = [
  'restore_command',
  'archive_cleanup_command',
  'recovery_end_command',
  'recovery_target',
  'recovery_target_action',
  'recovery_target_inclusive',
  'recovery_target_lsn',
  'recovery_target_name',
  'recovery_target_time',
  'recovery_target_timeline',
  'recovery_target_xid',
  'primary_conninfo',
  'primary_slot_name',
  // A restored server would wait at its first commit for standbys that do not follow it.
  'synchronous_standby_names',
]

/** Replaces the settings of a recovery in postgresql.auto.conf, which the server reads last. */
export async function writeAutoConf(
  dataDir: string,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const file = path.join(dataDir, 'postgresql.auto.conf')
  const before = (await readOptional(file)) ?? ''
  const mine = new Set([...dropped, ...Object.keys(settings)])
  const kept = before.split('\n').filter((line) => {
    const name = /^\s*([A-Za-z_.]+)\s*=?/.exec(line)?.[1]
    return name === undefined || !mine.has(name.toLowerCase())
  })
  const added = Object.entries({ synchronous_standby_names: '', ...settings }).map(
    ([name, value]) => `${name} = ${quoteSetting(value)}`,
  )
  const text = [...kept.filter((line) => line !== ''), ...added, ''].join('\n')
  await writeFile(file, text, { mode: 0o600 })
}

export function quoteSetting(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
}

/** The settings recorded of the source that a recovery or a new configuration needs. */
export function carriedSettings(base: BaseFacts): Record<string, string> {
  return JSON.parse(base.details['settings'] ?? '{}') as Record<string, string>
}

/** Where the configuration lived elsewhere than in the data directory, the base has none: a small one is written. */
export async function writeMissingConfig(dataDir: string, base: BaseFacts): Promise<boolean> {
  const config = path.join(dataDir, 'postgresql.conf')
  if ((await readOptional(config)) !== undefined) return false
  const lines = Object.entries(carriedSettings(base)).map(
    ([name, value]) => `${name} = ${quoteSetting(value)}`,
  )
  const head =
    '# Written by redoubt restore: the base held no postgresql.conf. Settings of the source:'
  await writeFile(config, [head, ...lines, ''].join('\n'), { mode: 0o600 })
  const rules = ['local all all peer', 'host all all 127.0.0.1/32 scram-sha-256', '']
  const files = { 'pg_hba.conf': rules.join('\n'), 'pg_ident.conf': '' }
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(dataDir, name)
    if ((await readOptional(file)) === undefined) await writeFile(file, text, { mode: 0o600 })
  }
  return true
}

/** A setting as the configuration files of a data directory have it; the last one counts. */
export async function configured(dataDir: string, name: string): Promise<string | undefined> {
  let value: string | undefined
  for (const file of ['postgresql.conf', 'postgresql.auto.conf']) {
    const text = (await readOptional(path.join(dataDir, file))) ?? ''
    for (const line of text.split('\n')) {
      const match = new RegExp(`^\\s*${name}\\s*=?\\s*(?:'([^']*)'|([^\\s#]+))`).exec(line)
      if (match) value = match[1] ?? match[2]
    }
  }
  return value
}
