import {
  baseTag,
  compareFiles,
  type RestoredFiles,
  restoreFiles,
  type RestoreFilesRequest,
} from '#backup/files'
import { Fault } from '#base/faults'
import type { Difference } from '#vault/repository/comparer'
import { openVaultAt, type Surroundings, type VaultAddress } from './open.ts'

export type RestoreFilesSettings = Omit<RestoreFilesRequest, 'repository' | 'signal'> & {
  readonly vault: VaultAddress
}

/** Restores a snapshot of files below a directory. */
export async function restoreTrees(
  settings: RestoreFilesSettings,
  around: Surroundings,
): Promise<RestoredFiles> {
  await using vault = await openVaultAt(settings.vault, around)
  return await restoreFiles({ ...settings, repository: vault.repository, signal: around.signal })
}

export type FileDifference = {
  readonly kind: Difference['kind']
  readonly path: string
  readonly said: string
}

/** What differs between a snapshot and a directory, as it is found. */
export async function* compareTrees(
  settings: RestoreFilesSettings,
  around: Surroundings,
): AsyncGenerator<FileDifference, void, void> {
  await using vault = await openVaultAt(settings.vault, around)
  const request = { ...settings, repository: vault.repository, signal: around.signal }
  for await (const { kind, path, said } of compareFiles(request)) {
    yield { kind, path: path.toString(), said }
  }
}

/** Whether a restore is of files, by what the user named and by what the vault holds. */
export async function isFilesRestore(
  settings: {
    readonly vault: VaultAddress
    readonly source?: string | undefined
    readonly at: string
  },
  around: Surroundings,
): Promise<boolean> {
  const { source, at } = settings
  if (source !== undefined) return source.includes('/')
  await using vault = await openVaultAt(settings.vault, around)
  const databases = await vault.catalog.sources(around)
  const snapshots = await vault.repository.snapshots(around)
  const files = snapshots.filter((snapshot) => !snapshot.tags?.includes(baseTag))
  if (/^[0-9a-f]{8,64}$/.test(at) && files.some((one) => one.id.startsWith(at))) return true
  if (files.length > 0 && databases.length > 0) {
    const names = databases.map((one) => one.name).join(', ')
    throw new Fault('usage', 'restore: the vault holds databases and files', {
      hint: `Name a database (${names}) or a path with --source, or a snapshot with --at.`,
    })
  }
  return databases.length === 0
}
