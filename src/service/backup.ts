import { type BackupFilesRequest, backupFiles } from '#backup/files'
import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import { systemTime } from '#base/time'
import { withoutSecrets } from '#base/urls'
import { engineOfUrl, isEngineUrl } from '#engines/all'
import { openVaultAt, type Surroundings, type VaultAddress } from './open.ts'
import { checkSourceName, defaultSourceName } from './source-name.ts'

export type BackupSettings = Pick<
  BackupFilesRequest,
  | 'compression'
  | 'excludes'
  | 'excludesNoCase'
  | 'excludeFiles'
  | 'excludeCaches'
  | 'excludeIfPresent'
  | 'excludeLargerThanBytes'
  | 'oneFileSystem'
  | 'hostname'
  | 'tags'
> & {
  /** One database URL, or paths. */
  readonly sources: readonly string[]
  readonly vault: VaultAddress
  readonly form?: 'physical' | 'logical' | undefined
  readonly name?: string | undefined
  readonly dryRun: boolean
  readonly parallel: number
  readonly limitBytesPerSecond?: number | undefined
  readonly progress: Progress
}

export type BackupOutcome =
  | {
      readonly kind: 'base'
      readonly source: string
      readonly name: string
      readonly snapshot: string
      readonly addedBytes: bigint
      readonly storedBytes: bigint
      readonly tookMs: number
    }
  | {
      readonly kind: 'files'
      readonly snapshot: string | undefined
      readonly parent: string | undefined
      readonly summary: Awaited<ReturnType<typeof backupFiles>>['summary']
      readonly addedBytes: bigint
      readonly storedBytes: bigint
      readonly unreadCount: number
      readonly troubles: readonly { readonly path: string; readonly said: string }[]
      readonly tookMs: number
    }

/** One backup: a base of a database, or a snapshot of files. */
export async function backup(
  settings: BackupSettings,
  around: Surroundings,
): Promise<BackupOutcome> {
  const databases = settings.sources.filter(isEngineUrl)
  const [url] = databases
  if (url === undefined) {
    refuseForeignScheme(settings.sources)
    refuseOptions(settings, ['form', 'name', 'limitBytesPerSecond'], 'databases')
    return backupTrees(settings, around)
  }
  if (settings.sources.length > 1) {
    throw new Fault('usage', 'back up: a database goes into a backup of its own', {
      hint: 'Give one --source for a database, or several for files and directories.',
    })
  }
  const ofFiles = ['excludes', 'excludesNoCase', 'excludeFiles', 'excludeIfPresent'] as const
  refuseOptions(settings, [...ofFiles, 'excludeLargerThanBytes'], 'files')
  return backupDatabase(url, settings, around)
}

/** `redis://cache` names no file, and a file of that name would be written `./redis:`. */
function refuseForeignScheme(sources: readonly string[]): void {
  for (const source of sources) {
    const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(source)?.[1]
    if (scheme === undefined) continue
    throw new Fault('usage', `read --source: no engine has the scheme '${scheme}:'`, {
      hint: 'Give a path, or a URL as postgres://, mysql:// or mariadb://.',
    })
  }
}

const optionNames = {
  form: '--base',
  name: '--name',
  limitBytesPerSecond: '--limit',
  excludes: '--exclude',
  excludesNoCase: '--iexclude',
  excludeFiles: '--exclude-file',
  excludeIfPresent: '--exclude-if-present',
  excludeLargerThanBytes: '--exclude-larger-than',
} as const satisfies Partial<Record<keyof BackupSettings, string>>

/** An option that would be passed over in silence is refused: who wrote it expects it to work. */
function refuseOptions(
  settings: BackupSettings,
  names: readonly (keyof typeof optionNames)[],
  whose: string,
): void {
  for (const name of names) {
    const value: unknown = settings[name]
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue
    throw new Fault('usage', `back up: ${optionNames[name]} is for ${whose} only`, {
      hint: 'Leave it out.',
    })
  }
}

async function backupDatabase(
  url: string,
  settings: BackupSettings,
  around: Surroundings,
): Promise<BackupOutcome> {
  // Files are backed up without them.
  const [{ takeBase }, { refuseUnfit }] = await Promise.all([
    import('#backup/base'),
    import('#backup/fitness'),
  ])
  const { signal, log } = around
  const source =
    settings.name === undefined ? defaultSourceName(url) : checkSourceName(settings.name)
  const kind = await engineOfUrl(url)
  await using engine = await kind.open(url, around)
  await refuseUnfit(engine, 'backup', { doing: `back up ${source}`, log, signal })
  await using vault = await openVaultAt(settings.vault, around, { discard: settings.dryRun })
  const { engine: name, flavor, version } = engine.facts
  const shownUrl = withoutSecrets(url)
  await vault.catalog.addSource(
    { name: source, engine: name, flavor, version, url: shownUrl },
    around,
  )
  const taken = await takeBase({
    ...settings,
    ...around,
    name: undefined,
    engine,
    vault,
    source,
  })
  const { addedBytes, storedBytes, tookMs, record } = taken
  const { name: baseName, snapshot } = record
  return { kind: 'base', source, name: baseName, snapshot, addedBytes, storedBytes, tookMs }
}

async function backupTrees(settings: BackupSettings, around: Surroundings): Promise<BackupOutcome> {
  const startedMs = systemTime.monotonicMs()
  await using vault = await openVaultAt(settings.vault, around, { discard: settings.dryRun })
  const { vault: _address, sources: _sources, ...rules } = settings
  const archived = await backupFiles({
    ...rules,
    signal: around.signal,
    repository: vault.repository,
    paths: settings.sources,
  })
  const { summary, unreadCount, troubles, snapshot, parent } = archived
  return {
    kind: 'files',
    snapshot: snapshot?.id,
    parent,
    summary,
    addedBytes: BigInt(summary.data_added),
    storedBytes: BigInt(summary.data_added_packed),
    unreadCount,
    troubles: troubles.map(({ path, said }) => ({ path, said })),
    tookMs: Math.round(systemTime.monotonicMs() - startedMs),
  }
}
