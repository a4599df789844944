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

/** The vaults that were named, each with its own password file where one was given. */
export function readVaults(input: Input): VaultAddress[] {
  const files = input.list('password-file')
  return input.list('vault').map((url, index) => ({ url, index, passwordFile: files[index] }))
}

export function readVault(input: Input): VaultAddress {
  return { url: input.required('vault'), index: 0, passwordFile: input.list('password-file')[0] }
}
