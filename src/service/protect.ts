import { homedir } from 'node:os'
import { join } from 'node:path'
import { protect, type ProtectStatus } from '#backup/protect'
import { retain } from '#backup/retain'
import { assert, Fault } from '#base/faults'
import type { ArchiveOnly, Vault } from '#vault'
import type { KeepRules } from '#vault/retention/keep'
import { parseGroupBy } from '#vault/retention/groups'
import { engineOfUrl } from '#engines/all'
import { openArchiveAt, openVaultAt, type Surroundings, type VaultAddress } from './open.ts'
import { checkSourceName, defaultSourceName } from './source-name.ts'

export type { ProtectStatus } from '#backup/protect'

export type ProtectSettings = {
  readonly url: string
  readonly vaults: readonly VaultAddress[]
  readonly durability: 'async' | 'strict'
  readonly copies?: number | undefined
  readonly name?: string | undefined
  readonly baseEveryMs: number
  readonly form?: 'physical' | 'logical' | undefined
  readonly parallel: number
  readonly limitBytesPerSecond?: number | undefined
  readonly stateDirectory?: string | undefined
  readonly journalLimitBytes: number
  /** What to keep of the bases; everything when no rule is set. */
  readonly keep: KeepRules
  readonly onStatus: (status: ProtectStatus) => void
}

/** Base backups and continuous log of one source into one or more vaults, until the signal aborts. */
export async function protectSource(
  settings: ProtectSettings,
  around: Surroundings,
): Promise<void> {
  const { url, copies, vaults: addresses } = settings
  const source =
    settings.name === undefined ? defaultSourceName(url) : checkSourceName(settings.name)
  if (copies !== undefined && settings.durability === 'async') {
    throw new Fault('usage', `protect ${source}: --copies ${copies} with --durability async`, {
      hint: 'Only --durability strict waits for copies; async ships to every --vault anyway.',
    })
  }
  if (copies !== undefined && (copies < 1 || copies > addresses.length)) {
    throw new Fault(
      'usage',
      `protect ${source}: --copies ${copies} with ${addresses.length} vaults`,
      {
        hint: 'Give as many --vault options as copies are wanted.',
      },
    )
  }
  refuseBaseOptions(settings)
  const kind = await engineOfUrl(url)
  await using opened = new AsyncDisposableStack()
  const vaults: ArchiveOnly[] = []
  const readable: Vault[] = []
  for (const address of addresses) {
    const vault = opened.use(await openForProtecting(address, around))
    if ('repository' in vault) readable.push(vault)
    if (vaults.some((one) => one.id === vault.id)) {
      throw new Fault('usage', `protect ${source}: the vault at ${vault.url} was named twice`, {
        hint: 'A second copy needs a vault of its own, made with redoubt vault init.',
      })
    }
    vaults.push(vault)
  }
  const [first, ...more] = vaults
  assert(first !== undefined, 'the command line asks for a vault')
  await protect({
    ...settings,
    kind,
    source,
    vaults: [first, ...more],
    stateDirectory: settings.stateDirectory ?? join(dataDirectory(around.env), 'protect', source),
    afterBase: (signal) => retainBases(readable, source, settings.keep, signal),
    log: around.log,
    signal: around.signal,
  })
}

function openForProtecting(
  address: VaultAddress,
  around: Surroundings,
): Promise<ArchiveOnly | Vault> {
  const { archiverFile } = address
  return archiverFile === undefined
    ? openVaultAt(address, around)
    : openArchiveAt({ ...address, archiverFile }, around)
}

/** A host that only archives cannot read the vault, and a base is made of what is there already. */
function refuseBaseOptions({ vaults, form, limitBytesPerSecond, keep }: ProtectSettings): void {
  if (vaults.some(({ archiverFile }) => archiverFile === undefined)) return
  const given =
    form !== undefined || limitBytesPerSecond !== undefined || Object.keys(keep).length > 0
  if (!given) return
  throw new Fault('usage', 'protect: with --archiver-file no bases are taken or forgotten', {
    hint: 'Leave out --base, --limit and --keep-...: redoubt backup on a host with the password takes the bases.',
  })
}

/** Forgets the bases of this source that no rule wants, in each vault, and the log before the oldest that stays. */
async function retainBases(
  vaults: readonly Vault[],
  source: string,
  rules: KeepRules,
  signal: AbortSignal,
): Promise<void> {
  if (Object.keys(rules).length === 0) return
  for (const vault of vaults) {
    const filter = { tags: [[`source=${source}`]] }
    await retain({ vault, signal, rules, filter, groupBy: parseGroupBy('') })
  }
}

function dataDirectory(env: Surroundings['env']): string {
  return env['REDOUBT_DATA'] ?? join(homedir(), '.redoubt')
}
