import { Fault, isFault } from '#base/faults'
import type { Storage } from '#storage'
import { formatArchiverState } from './archiver-state.ts'
import type { LogFinding } from './archive/archive.ts'
import { encodeText } from './archive/names.ts'
import { listIdentities, type NamedSecrets, removeIdentity, saveIdentity } from './identity.ts'
import type { PasswordCost } from './repository/keys.ts'
import type { Repository } from './repository/repository.ts'
import { formatSignedJson, parseSignedJson } from './signed-json.ts'
import { createSigner, type Keyring, publicText } from './signing.ts'
import { enrolKey, readKeyring, strikeKey } from './trust.ts'

type Options = { readonly signal: AbortSignal }

/** What a password costs to try: other than the default in tests only. */
export type Cost = {
  readonly repository?: PasswordCost | undefined
  /** Logarithm of scrypt's N for the identity file. */
  readonly identity?: number | undefined
}

/** One password of the vault: an identity file and a key of the repository, made and removed together. */
export type VaultKey = {
  readonly name: string
  /** It opened this vault now. */
  readonly current: boolean
}

/** A signing key that the vault believes. */
export type EnrolledKey = {
  readonly id: string
  readonly kind: 'root' | 'archiver'
  readonly name: string
  /** Undefined for all sources. */
  readonly sources?: readonly string[] | undefined
}

/** The passwords of a vault, and the archivers that may write without one. */
export interface VaultKeys {
  list(options: Options): Promise<VaultKey[]>
  /** Another password, for everything: `exists` when the name is taken. */
  add(name: string, password: string, options: Options): Promise<void>
  /** Another password in the place of the one that opened the vault. */
  change(password: string, options: Options): Promise<void>
  /** Removes a password; the last one is refused. */
  remove(name: string, options: Options): Promise<void>
  /**
   * Makes a signing key for a host that only archives, and returns the state that the host keeps, as text: whoever
   * has it can write the log of those sources, and read nothing. `exists` when the name is taken.
   */
  enrol(
    name: string,
    options: Options & { readonly sources?: readonly string[] | undefined },
  ): Promise<string>
  enrolled(): readonly EnrolledKey[]
  /**
   * No longer believes an archiver, by its key's id or its name, and removes what it signed; refused when that is log and
   * `withLog` was not said. Broken off, it is gone on with by the id. Returns how many objects of the log went.
   */
  strike(
    idOrName: string,
    options: Options & { readonly withLog?: boolean | undefined },
  ): Promise<number>
  /** What is wrong with the records of the passwords; the files that they are about are checked by opening. */
  check(options: Options): Promise<LogFinding[]>
}

/** Removes what a key signed of log and catalog; returns how many objects of the log went, or would. */
type ClearUp = (
  keyId: string,
  options: Options & { readonly dryRun?: boolean | undefined },
) => Promise<number>

const keyIdPattern = /^[0-9a-f]{16}$/

export class OpenKeys implements VaultKeys {
  readonly #storage: Storage
  readonly #repository: Repository
  readonly #keyring: Keyring
  readonly #cost: Cost
  readonly #clearUp: ClearUp
  #named: NamedSecrets

  constructor(parts: {
    readonly storage: Storage
    readonly repository: Repository
    readonly named: NamedSecrets
    readonly keyring: Keyring
    readonly cost: Cost | undefined
    readonly clearUp: ClearUp
  }) {
    this.#clearUp = parts.clearUp
    this.#storage = parts.storage
    this.#repository = parts.repository
    this.#named = parts.named
    this.#keyring = parts.keyring
    this.#cost = parts.cost ?? {}
  }

  async list({ signal }: Options): Promise<VaultKey[]> {
    const names = await listIdentities(this.#storage, { signal })
    return names.map((name) => ({ name, current: name === this.#named.name }))
  }

  async check({ signal }: Options): Promise<LogFinding[]> {
    const findings: LogFinding[] = []
    const named = new Set<string>()
    for (const name of await listIdentities(this.#storage, { signal })) {
      const object = passwordKey(name)
      try {
        const record = await this.#readPassword(name, signal)
        if (record) {
          named.add(record.repositoryKey)
          continue
        }
        const said = `password ${name} has no record: to remove it will leave its repository key`
        findings.push({ severity: 'warns', code: 'missing', object, said })
      } catch (error) {
        if (!isFault(error, 'forged', 'corrupt', 'unsupported')) throw error
        findings.push({ severity: 'damaged', code: error.code, object, said: error.message })
      }
    }
    findings.push(...(await this.#checkEnrolments(signal)))
    return [...findings, ...(await this.#checkRepositoryKeys(named, signal))]
  }

  async #checkEnrolments(signal: AbortSignal): Promise<LogFinding[]> {
    const findings: LogFinding[] = []
    await readKeyring(this.#storage, publicText(this.#named.secrets.root), {
      signal,
      onBad: (object, { code, message: said }) =>
        findings.push({ severity: 'damaged', code, object, said }),
    })
    return findings
  }

  async add(name: string, password: string, { signal }: Options): Promise<void> {
    if ((await listIdentities(this.#storage, { signal })).includes(name)) {
      throw new Fault('exists', `add key ${name} to ${this.#storage.url}: there is one already`)
    }
    // An addition that was broken off: nobody was told that its password is good.
    const record = await this.#recallPassword(name, signal)
    await this.#removeRepositoryKey(record?.repositoryKey, signal)
    await this.#save(name, password, { replaces: [], signal })
  }

  async change(password: string, { signal }: Options): Promise<void> {
    const { name, repositoryKey } = this.#named
    // A change that was broken off before the identity leaves its new key, one broken off behind it the old one.
    const record = await this.#recallPassword(name, signal)
    const known = [repositoryKey, ...(record ? [record.repositoryKey, ...record.replaces] : [])]
    const replaces = [...new Set(known)]
    // In one step from the old password to the new one; until then the old one opens both.
    this.#named = await this.#save(name, password, { replaces, signal })
    for (const id of replaces) await this.#storage.delete(`keys/${id}`, { signal })
  }

  async remove(name: string, { signal }: Options): Promise<void> {
    const names = await listIdentities(this.#storage, { signal })
    // A removal that was broken off leaves the record, and with it a key that still opens the repository.
    const record = passwordKey(name)
    const begun = !names.includes(name) && (await this.#storage.stat(record, { signal }))
    if (!names.includes(name) && !begun) {
      throw new Fault('missing', `remove key ${name} from ${this.#storage.url}: there is none`, {
        hint: `The keys are: ${names.join(', ')}.`,
      })
    }
    if (name === this.#named.name) {
      throw new Fault('refused', `remove key ${name}: it is the one that opened the vault`, {
        hint: 'Open the vault with another password to remove this one.',
      })
    }
    const password = await this.#readPassword(name, signal)
    await removeIdentity(this.#storage, name, { signal })
    for (const id of password ? [password.repositoryKey, ...password.replaces] : []) {
      await this.#removeRepositoryKey(id, signal)
    }
    await this.#storage.delete(record, { signal })
  }

  async enrol(
    name: string,
    options: Options & { readonly sources?: readonly string[] | undefined },
  ): Promise<string> {
    const { signal, sources } = options
    const { vault, root, identity } = this.#named.secrets
    const known = this.#keyring.list().find((key) => key.kind === 'archiver' && key.name === name)
    if (known) {
      const doing = `enrol ${name} at ${this.#storage.url}`
      throw new Fault('exists', `${doing}: an archiver of that name is enrolled, key ${known.id}`, {
        hint: `Strike it off first if it is to be replaced (vault key strike ${known.id}): what it wrote is then not believed any more. Or choose another name.`,
      })
    }
    const signer = createSigner()
    const enrolment = { name, publicKey: publicText(signer), sources }
    await enrolKey(this.#storage, enrolment, root, { signal })
    this.#keyring.add(enrolment.publicKey, { kind: 'archiver', name, sources })
    return formatArchiverState({
      vault,
      rootPublicKey: publicText(root),
      recipients: [identity.recipient],
      signer,
    })
  }

  enrolled(): readonly EnrolledKey[] {
    return this.#keyring.list()
  }

  async strike(
    idOrName: string,
    { signal, withLog = false }: Options & { readonly withLog?: boolean | undefined },
  ): Promise<number> {
    const archivers = this.#keyring.list().filter(({ kind }) => kind === 'archiver')
    const byId = archivers.find(({ id }) => id === idOrName)
    const found = byId ? [byId] : archivers.filter(({ name }) => name === idOrName)
    const [archiver] = found
    const doing = `strike archiver ${idOrName} off at ${this.#storage.url}`
    const list = (keys: typeof archivers) =>
      keys.map(({ id, name }) => `${name} (${id})`).join(', ')
    if (!archiver) {
      // Struck off already, and broken off before all that it wrote was removed; or its enrolment is damaged.
      if (keyIdPattern.test(idOrName)) {
        const wasThere = await strikeKey(this.#storage, idOrName, { signal })
        const removed = await this.#clearUp(idOrName, { signal })
        if (wasThere || removed > 0) return removed
      }
      throw new Fault('missing', `${doing}: there is none`, {
        hint: archivers.length > 0 ? `The archivers are: ${list(archivers)}.` : undefined,
      })
    }
    if (found.length > 1) {
      throw new Fault('usage', `${doing}: ${found.length} archivers have that name`, {
        hint: `Give the key of one of them: ${list(found)}.`,
      })
    }
    const written = withLog ? 0 : await this.#clearUp(archiver.id, { signal, dryRun: true })
    if (written > 0) {
      throw new Fault('refused', `${doing}: ${written} objects of the log that it wrote would go`, {
        hint: 'Say --with-log to remove them, and take a new base right after; or leave it enrolled, and end it on its host.',
      })
    }
    await strikeKey(this.#storage, archiver.id, { signal })
    this.#keyring.remove(archiver.id)
    return this.#clearUp(archiver.id, { signal })
  }

  /**
   * Stores both halves of a password, the record of what belongs to it first, so that nothing is there that nobody
   * knows of; then the repository's, because a password whose identity is there opens everything.
   */
  async #save(
    name: string,
    password: string,
    { replaces, signal }: { readonly replaces: readonly string[]; readonly signal: AbortSignal },
  ): Promise<NamedSecrets> {
    let named = { ...this.#named, name }
    const beforeStored = async (repositoryKey: string) => {
      named = { ...named, repositoryKey }
      await savePassword(this.#storage, named, { signal, replaces })
    }
    await this.#repository.addKey(password, { signal, beforeStored })
    const { masterKeys } = this.#repository
    const how = { signal, replace: replaces.length > 0, workFactor: this.#cost.identity }
    await saveIdentity(this.#storage, { ...named, masterKeys }, password, how)
    return named
  }

  /** Removes the repository's half of a password, which may have gone already. */
  async #removeRepositoryKey(id: string | undefined, signal: AbortSignal): Promise<void> {
    const keys = await this.#repository.listKeys({ signal })
    if (id === undefined || !keys.some((key) => key.id === id)) return
    await this.#repository.removeKey(id, { signal })
  }

  /** Keys of the repository that no password of the vault names: their passwords still open the repository. */
  async #checkRepositoryKeys(named: ReadonlySet<string>, signal: AbortSignal) {
    const keys = await this.#repository.listKeys({ signal })
    const strangers = keys.filter(({ id }) => id !== this.#named.repositoryKey && !named.has(id))
    return strangers.map(({ id }): LogFinding => {
      const said = `no password of the vault belongs to it: restic added it, or a change of password was broken off`
      return { severity: 'warns', code: 'stranger', object: `keys/${id}`, said }
    })
  }

  /** What is known of a password that is about to be written anew: a damaged record is no reason not to. */
  async #recallPassword(name: string, signal: AbortSignal): Promise<PasswordRecord | undefined> {
    try {
      return await this.#readPassword(name, signal)
    } catch (error) {
      if (isFault(error, 'forged', 'corrupt')) return undefined
      throw error
    }
  }

  /** Which keys of the repository belong to a password that is not at hand. */
  async #readPassword(name: string, signal: AbortSignal): Promise<PasswordRecord | undefined> {
    const key = passwordKey(name)
    if (!(await this.#storage.stat(key, { signal }))) return undefined
    const bytes = await this.#storage.get(key, { signal })
    const request = { purpose, keyring: this.#keyring, what: `the password record ${key}` }
    const { fields, scope } = parseSignedJson(bytes, request)
    if (scope.kind !== 'root' || fields.text('name') !== name) {
      throw new Fault('forged', `check ${request.what}: it is not the vault's own`)
    }
    const replaces = fields.has('replaces') ? fields.list('replaces') : []
    return {
      repositoryKey: fields.hex('repositoryKey', 32),
      replaces: replaces.filter((id) => typeof id === 'string' && /^[0-9a-f]{64}$/.test(id)),
    } as PasswordRecord
  }
}

type PasswordRecord = {
  readonly repositoryKey: string
  /** What it took the place of: gone, unless the change was broken off. */
  readonly replaces: readonly string[]
}

const purpose = 'redoubt password record v1'

/** Notes which key of the repository belongs to a password, so that both can be removed without it. */
export async function savePassword(
  storage: Storage,
  { name, repositoryKey, secrets }: NamedSecrets,
  { signal, replaces = [] }: Options & { readonly replaces?: readonly string[] | undefined },
): Promise<void> {
  const record = { name, repositoryKey, ...(replaces.length > 0 ? { replaces } : {}) }
  const bytes = formatSignedJson(purpose, record, secrets.root)
  await storage.put(passwordKey(name), bytes, { signal })
}

function passwordKey(name: string): string {
  return `catalog/passwords/${encodeText(name)}.json`
}
