import { readFile } from 'node:fs/promises'
import { Fault, fromSystem, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { withoutSecrets } from '#base/urls'
import { openStorage } from '#storage/all'
import { withoutWrites } from '#storage/wrap/discard'
import { type ArchiveOnly, openForArchiving, openVault, type Vault } from '#vault'

/** A vault as the user names it: its password comes from a file, the environment, or a question. */
export type VaultAddress = {
  readonly url: string
  /** 0 for the first `--vault`. */
  readonly index: number
  readonly passwordFile?: string | undefined
  /** The file of a host that only archives, in the place of a password. */
  readonly archiverFile?: string | undefined
  /** How long work waits for a lock that excludes it; refused at once when it is undefined. */
  readonly lockWaitMs?: number | undefined
}

/** What every service function needs beside its own request. */
export type Surroundings = {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly log: Log
  readonly signal: AbortSignal
  /** Asks the user for a password; undefined where nobody can be asked. */
  readonly ask?: ((question: string) => Promise<string>) | undefined
}

/** Opens a vault with its password; with `discard`, on a store that accepts and forgets every change. */
export async function openVaultAt(
  address: VaultAddress,
  around: Surroundings,
  options: {
    readonly discard?: boolean | undefined
    /** Where it was read before. */
    readonly password?: string | undefined
  } = {},
): Promise<Vault> {
  const { signal, log } = around
  const storage = await findVault(openStorage(address.url, { signal }))
  const password = options.password ?? (await readPassword(address, around))
  const used = options.discard ? withoutWrites(storage) : storage
  const { lockWaitMs } = address
  return findVault(openVault(used, { password, signal, log, lockWaitMs }))
}

/** Opens a vault for archiving alone, with the file that `vault key enrol` wrote: nothing can be read. */
export async function openArchiveAt(
  address: VaultAddress & { readonly archiverFile: string },
  around: Surroundings,
): Promise<ArchiveOnly> {
  const { signal, log } = around
  const file = address.archiverFile
  const state = await readFile(file, 'utf8').catch((error: unknown) => {
    throw fromSystem(error, `read the archiver file ${file}`)
  })
  const storage = await findVault(openStorage(address.url, { signal }))
  return findVault(
    openForArchiving(storage, { state, what: `the archiver file ${file}`, signal, log }),
  )
}

/** A vault by its address, or one that the caller has open and will close. */
export type VaultChoice = VaultAddress | Vault

/** The vault to work with; what this opened itself it closes again. */
export async function useVault(
  choice: VaultChoice,
  around: Surroundings,
): Promise<{ readonly vault: Vault } & AsyncDisposable> {
  if ('repository' in choice) {
    return { vault: choice, [Symbol.asyncDispose]: async () => undefined }
  }
  const vault = await openVaultAt(choice, around)
  return { vault, [Symbol.asyncDispose]: () => vault[Symbol.asyncDispose]() }
}

/** A vault that is not where it was named cannot be reached: another matter than a name that a vault does not know. */
export async function findVault<T>(opening: Promise<T>): Promise<T> {
  return opening.catch((error: unknown) => {
    if (!isFault(error, 'missing')) throw error
    const { message, hint } = error
    throw new Fault('no-vault', message, { hint, cause: error })
  })
}

/**
 * The password of a vault: `--password-file`, then REDOUBT_VAULT_PASSWORD or REDOUBT_VAULT_PASSWORD_FILE
 * (with `_2` and so on for further vaults, which else take the first one's), then a question.
 */
export async function readPassword(address: VaultAddress, around: Surroundings): Promise<string> {
  const { env, ask } = around
  if (address.passwordFile !== undefined) return readPasswordFile(address.passwordFile)
  const suffixes = address.index === 0 ? [''] : [`_${address.index + 1}`, '']
  for (const suffix of suffixes) {
    const given = env[`REDOUBT_VAULT_PASSWORD${suffix}`]
    if (given !== undefined && given !== '') return given
    const file = env[`REDOUBT_VAULT_PASSWORD_FILE${suffix}`]
    if (file !== undefined && file !== '') return readPasswordFile(file)
  }
  if (ask) return ask(`Password of the vault at ${withoutSecrets(address.url)}`)
  throw new Fault(
    'usage',
    `open the vault at ${withoutSecrets(address.url)}: no password was given`,
    {
      hint: 'Set REDOUBT_VAULT_PASSWORD or REDOUBT_VAULT_PASSWORD_FILE, or use --password-file.',
    },
  )
}

async function readPasswordFile(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw fromSystem(error, `read the password file ${path}`)
  })
  const password = text.replace(/\r?\n$/, '')
  if (password === '') throw new Fault('usage', `read the password file ${path}: it is empty`)
  return password
}
