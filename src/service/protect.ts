import { homedir } from 'node:os'
import { join } from 'node:path'
import { protect, type ProtectStatus } from '#backup/protect'
import { retain } from '#backup/retain'
import type { VaultPlace } from '#backup/ship'
import { Fault, isFault } from '#base/faults'
import { tasks } from '#base/tasks'
import type { ArchiveOnly, Vault } from '#vault'
import type { KeepRules } from '#vault/retention/keep'
import { parseGroupBy } from '#vault/retention/groups'
import { engineOfUrl } from '#engines/all'
import { withoutSecrets } from '#base/urls'
import {
  openArchiveAt,
  openVaultAt,
  readPassword,
  type Surroundings,
  type VaultAddress,
} from './open.ts'
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
  /** How long folded log objects are under object lock. */
  readonly retainMs?: number | undefined
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
  await using vaults = new ProtectedVaults(source, around)
  await protect({
    ...settings,
    kind,
    source,
    vaults: await vaults.reach(addresses),
    stateDirectory: settings.stateDirectory ?? join(dataDirectory(around.env), 'protect', source),
    afterBase: (vault, signal) => retainBases(vault, source, settings.keep, signal),
    log: around.log,
    signal: around.signal,
  })
}

/** Opens the vaults of one protection, and closes in the end those that were reached. */
class ProtectedVaults implements AsyncDisposable {
  readonly #source: string
  readonly #around: Surroundings
  readonly #opened = new AsyncDisposableStack()
  readonly #ids = new Set<string>()

  constructor(source: string, around: Surroundings) {
    this.#source = source
    this.#around = around
  }

  /** Where one of several vaults cannot be reached, protection begins without it; where none can be, this throws. */
  async reach(addresses: readonly VaultAddress[]): Promise<readonly VaultPlace[]> {
    const { signal, log } = this.#around
    const closed: VaultPlace[] = []
    // Questions come one behind the other, and before anything else.
    for (const address of addresses) {
      const takesBases = address.archiverFile === undefined
      const open = await this.#opening(address)
      closed.push({ url: withoutSecrets(address.url), takesBases, open })
    }
    const tried = await tasks(signal, (t) =>
      Promise.all(closed.map((place) => t.run(() => tryPlace(place)))),
    )
    const failures = tried.flatMap(({ failure }) => failure ?? [])
    if (failures.length === tried.length) throw failures[0]
    for (const { code, message } of failures) log.warn(`begins without it: ${message}`, { code })
    return tried.map(({ place }) => place)
  }

  /** How to open a vault, any number of times, without asking for its password again. */
  async #opening(address: VaultAddress): Promise<() => Promise<ArchiveOnly>> {
    const { archiverFile } = address
    if (archiverFile !== undefined) {
      return async () => this.#keep(await openArchiveAt({ ...address, archiverFile }, this.#around))
    }
    const password = await readPassword(address, this.#around)
    return async () => this.#keep(await openVaultAt(address, this.#around, { password }))
  }

  #keep<V extends ArchiveOnly>(vault: V): V {
    this.#opened.use(vault)
    if (this.#ids.has(vault.id)) {
      const doing = `protect ${this.#source}: the vault at ${vault.url}`
      throw new Fault('usage', `${doing} was named twice`, {
        hint: 'A second copy needs a vault of its own, made with redoubt vault init.',
      })
    }
    this.#ids.add(vault.id)
    return vault
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.disposeAsync()
  }
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

/** Opens a vault if it can be reached now. */
async function tryPlace(
  place: VaultPlace,
): Promise<{ readonly place: VaultPlace; readonly failure?: Fault }> {
  try {
    const opened = await place.open()
    return { place: { ...place, opened, open: async () => opened } }
  } catch (error) {
    if (!isFault(error) || error.recovery === 'stop') throw error
    return { place, failure: error }
  }
}

/** Forgets the bases of this source that no rule wants, and the log before the oldest that stays. */
async function retainBases(
  vault: Vault,
  source: string,
  rules: KeepRules,
  signal: AbortSignal,
): Promise<void> {
  if (Object.keys(rules).length === 0) return
  const filter = { tags: [[`source=${source}`]] }
  await retain({ vault, signal, rules, filter, groupBy: parseGroupBy('') })
}

function dataDirectory(env: Surroundings['env']): string {
  return env['REDOUBT_DATA'] ?? join(homedir(), '.redoubt')
}
