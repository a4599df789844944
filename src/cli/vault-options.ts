import { Fault } from '#base/faults'
import type { VaultAddress } from '#service/open'
import type { Input, OptionSpec } from './verb.ts'

export const vaultOption: OptionSpec = {
  flags: '--vault <url>',
  help: 'where the vault is: a directory, file:///dir, s3://bucket/prefix?endpoint=…',
  required: true,
}

export const vaultsOption: OptionSpec = {
  ...vaultOption,
  help: `${vaultOption.help}; may be given several times, the first counts as the main one`,
  many: true,
}

export const passwordFileOption: OptionSpec = {
  flags: '--password-file <file>',
  help: 'file with the vault password; else REDOUBT_VAULT_PASSWORD or REDOUBT_VAULT_PASSWORD_FILE, else asked for. For a second vault: the option again, or REDOUBT_VAULT_PASSWORD_2',
  many: true,
}

/** Of every verb that locks the repository. */
export const retryLockOption: OptionSpec = {
  flags: '--retry-lock <span>',
  help: 'how long to wait for a lock, say of a prune, before giving up',
  default: '2m',
}

export const archiverFileOption: OptionSpec = {
  flags: '--archiver-file <file>',
  help: 'archive the log only, with what vault key enrol wrote and no password; the option again for each further vault',
  many: true,
}

/** The vaults of `protect`: with an archiver file each, or with passwords. */
export function readProtectedVaults(input: Input): VaultAddress[] {
  const files = input.list('archiver-file')
  const vaults = readVaults(input)
  if (files.length === 0) return vaults
  if (files.length !== vaults.length || input.list('password-file').length > 0) {
    throw new Fault(
      'usage',
      `protect: ${files.length} --archiver-file for ${vaults.length} vaults`,
      {
        hint: 'Give one for each --vault, in the same order, and no --password-file.',
      },
    )
  }
  return vaults.map((vault, index) => ({ ...vault, archiverFile: files[index] }))
}

/** The vaults that were named, each with its own password file where one was given. */
export function readVaults(input: Input): VaultAddress[] {
  const files = input.list('password-file')
  return input.list('vault').map((url, index) => ({ url, index, passwordFile: files[index] }))
}

export function readVault(input: Input): VaultAddress {
  return {
    url: input.required('vault'),
    index: 0,
    passwordFile: input.list('password-file')[0],
    lockWaitMs: input.durationMs('retry-lock'),
  }
}
