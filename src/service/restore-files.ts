import {
  baseTag,
  compareFiles,
  type RestoredFiles,
  restoreFiles,
  type RestoreFilesRequest,
} from '#backup/files'
import { Fault } from '#base/faults'
import type { Difference } from '#vault/repository/comparer'
import type { Vault } from '#vault'
import {
  openVaultAt,
  type Surroundings,
  useVault,
  type VaultAddress,
  type VaultChoice,
} from './open.ts'

export type RestoreFilesSettings = Omit<RestoreFilesRequest, 'repository' | 'signal'> & {
  readonly vault: VaultChoice
}

/** Restores a snapshot of files below a directory. */
export async function restoreTrees(
  settings: RestoreFilesSettings,
  around: Surroundings,
): Promise<RestoredFiles> {
  await using used = await useVault(settings.vault, around)
  const { repository } = used.vault
  return await restoreFiles({ ...settings, repository, signal: around.signal })
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
  await using used = await useVault(settings.vault, around)
  const request = { ...settings, repository: used.vault.repository, signal: around.signal }
  for await (const { kind, path, said } of compareFiles(request)) {
    yield { kind, path: path.toString(), said }
  }
}

type Asked = {
  readonly vault: VaultAddress
  readonly source?: string | undefined
  readonly at: string
  /** A database is meant, whatever else the vault holds. */
  readonly prove: boolean
}

/** The vault of a restore, open, and whether files or a database are to come out of it; for the caller to close. */
export type OpenedRestore = AsyncDisposable & { readonly vault: Vault; readonly isFiles: boolean }

/** Opens the vault that a restore names, once for all that follows, and looks what is meant. */
export async function openRestore(asked: Asked, around: Surroundings): Promise<OpenedRestore> {
  await using stack = new AsyncDisposableStack()
  const vault = stack.use(await openVaultAt(asked.vault, around))
  const isFiles = !asked.prove && (await isFilesRestore(vault, asked, around))
  const opened = stack.move()
  return { vault, isFiles, [Symbol.asyncDispose]: () => opened.disposeAsync() }
}

/** Whether a restore is of files, by what the user named and by what the vault holds. */
async function isFilesRestore(
  vault: Vault,
  { source, at }: Asked,
  around: Surroundings,
): Promise<boolean> {
  if (source !== undefined) return source.includes('/')
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
