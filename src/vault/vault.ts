import { Fault, isFault } from '#base/faults'
import { randomHex } from '#base/ids'
import { type Log, silentLog } from '#base/log'
import type { Storage } from '#storage'
import type { LogFinding } from './archive/archive.ts'
import { ProcessHolder } from './archive/holder.ts'
import { type Archive, LogArchive } from './archive/log-archive.ts'
import type { Reading, Sealing } from './archive/object.ts'
import { parseArchiverState } from './archiver-state.ts'
import { type Catalog, SignedCatalog } from './catalog/catalog.ts'
import { RecordStore } from './catalog/store.ts'
import {
  createSecrets,
  listIdentities,
  type NamedSecrets,
  openIdentity,
  saveIdentity,
} from './identity.ts'
import { type Cost, OpenKeys, savePassword, type VaultKeys } from './passwords.ts'
import type { LockWait } from './repository/lock.ts'
import { initRepository, openRepository } from './repository/open.ts'
import type { Repository } from './repository/repository.ts'
import { type Keyring, publicText } from './signing.ts'
import { readKeyring, readVaultRecord, saveVaultRecord, type VaultRecord } from './trust.ts'

export type { ArchiveWriter, LogFinding, LogSpan } from './archive/archive.ts'
export type { Degraded } from './archive/lease.ts'
export type { Archive } from './archive/log-archive.ts'
export type { ArchiveReader, Moment } from './archive/reader.ts'
export type { Catalog } from './catalog/catalog.ts'
export type { BaseRecord, GapRecord, ProofRecord, SourceRecord } from './catalog/records.ts'
export type { EnrolledKey, VaultKey, VaultKeys } from './passwords.ts'
export type { BlobSaver, Repository, Snapshot } from './repository/repository.ts'

type Options = { readonly signal: AbortSignal; readonly log?: Log | undefined }

/** A vault as a host sees it that only archives: it writes log, and reads nothing but where the log ends. */
export interface ArchiveOnly extends AsyncDisposable {
  readonly id: string
  readonly url: string
  readonly archive: Archive
  /** Takes new sources and gaps; reading it is refused. */
  readonly catalog: Catalog
}

/** An open vault. */
export interface Vault extends ArchiveOnly {
  readonly storage: Storage
  readonly repository: Repository
  readonly keys: VaultKeys
  /** Checks catalog and log; the repository has a check of its own. All findings. */
  check(options: Options & { readonly readData: boolean }): Promise<LogFinding[]>
}

/**
 * Makes a vault under one password: a repository, an identity, the vault's record. Where a repository is already that
 * the password opens, but no identity (a plain restic repository, or a making that was broken off), it adds what is missing.
 */
export async function initVault(
  storage: Storage,
  options: Options & {
    readonly password: string
    /** Name of the password. */
    readonly name?: string | undefined
    readonly cost?: Cost | undefined
  },
): Promise<Vault> {
  const { password, name = 'main', cost = {}, signal } = options
  if ((await listIdentities(storage, { signal })).length > 0) {
    throw new Fault('exists', `make a vault at ${storage.url}: there is one already`, {
      hint: 'Use it with its password, or choose another place.',
    })
  }
  const repository = await openOrInit(storage, password, cost, signal)
  const { keyId: repositoryKey, masterKeys } = repository
  const named = { name, repositoryKey, masterKeys, secrets: createSecrets(randomHex(16)) }
  const how = { signal, replace: false, workFactor: cost.identity }
  await savePassword(storage, named, { signal })
  await saveIdentity(storage, named, password, how)
  return assemble(storage, repository, named, { ...options, password })
}

/** Opens a vault with one of its passwords: `wrong-key` when none fits, `missing` when there is no vault. */
export async function openVault(
  storage: Storage,
  options: Options & {
    readonly password: string
    readonly cost?: Cost | undefined
    /** How long work on the repository waits for a lock that excludes it. */
    readonly lockWaitMs?: number | undefined
  },
): Promise<Vault> {
  const { password, cost, signal, lockWaitMs, log = silentLog } = options
  const named = await openIdentity(storage, password, { signal })
  const { repositoryKey: keyId, masterKeys } = named
  const repository = await openRepository(storage, password, {
    signal,
    passwordCost: cost?.repository,
    known: masterKeys === undefined ? undefined : { keyId, masterKeys },
    lockWait: lockWaitMs === undefined ? undefined : sayingWait(lockWaitMs, log),
  }).catch(async (error: unknown) => {
    if (!isFault(error, 'wrong-key') || (await storage.stat(`keys/${keyId}`, { signal })))
      throw error
    // The password fits: it opened the identity.
    throw new Fault(
      'corrupt',
      `open the vault at ${storage.url}: keys/${keyId}, which belongs to password ${named.name}, is gone`,
      {
        hint: 'Open the vault with another of its passwords, or bring that object back from a copy of the vault.',
        cause: error,
      },
    )
  })
  return assemble(storage, repository, named, options)
}

function sayingWait(ms: number, log: Log): LockWait {
  return { ms, onWait: ({ message }) => log.info(`waits, at most ${ms / 1000} s: ${message}`) }
}

/** Opens a vault for archiving alone, with the state that `keys.enrol` gave out. */
export async function openForArchiving(
  storage: Storage,
  options: Options & {
    readonly state: string
    /** What the state is called in messages: the file that it came from. */
    readonly what?: string | undefined
  },
): Promise<ArchiveOnly> {
  const { signal, what = 'the archiver state' } = options
  const state = parseArchiverState(options.state, what)
  const onBad = warnOfEnrolment(options.log)
  const keyring = await readKeyring(storage, state.rootPublicKey, { signal, onBad })
  const record = await readVaultRecord(storage, keyring, { signal })
  if (record?.vault !== state.vault) {
    throw new Fault(
      'forged',
      `open the vault at ${storage.url}: it is not vault ${state.vault}, which ${what} is of`,
    )
  }
  const { vault, recipients, signer } = { ...state, recipients: record.recipients }
  const sealing = { vault, recipients, signer }
  const { rootPublicKey } = state
  const parts = openParts({ storage, sealing, keyring, rootPublicKey, log: options.log })
  return {
    id: vault,
    url: storage.url,
    ...parts,
    [Symbol.asyncDispose]: () => storage[Symbol.asyncDispose](),
  }
}

async function openOrInit(
  storage: Storage,
  password: string,
  cost: Cost,
  signal: AbortSignal,
): Promise<Repository> {
  const options = { signal, passwordCost: cost.repository }
  const there = await storage.stat('config', { signal })
  return there
    ? openRepository(storage, password, options)
    : initRepository(storage, password, options)
}

async function assemble(
  storage: Storage,
  repository: Repository,
  named: NamedSecrets,
  options: Options & { readonly password: string; readonly cost?: Cost | undefined },
): Promise<Vault> {
  const { signal } = options
  const { secrets } = named
  const rootPublicKey = publicText(secrets.root)
  const onBad = warnOfEnrolment(options.log)
  const keyring = await readKeyring(storage, rootPublicKey, { signal, onBad })
  // A making that was broken off behind the identity: what it holds is enough to go on.
  const record: VaultRecord =
    (await readVaultRecord(storage, keyring, { signal })) ??
    (await saveVaultRecord(storage, secrets, { signal }))
  if (record.vault !== secrets.vault) {
    throw new Fault('forged', `open the vault at ${storage.url}: its record is of ${record.vault}`)
  }
  const sealing = { vault: record.vault, recipients: record.recipients, signer: secrets.root }
  const identities = [secrets.identity]
  const { log } = options
  const parts = openParts({ storage, sealing, keyring, rootPublicKey, log, identities })
  const clearUp = (keyId: string, how: ClearUpOptions) => clearUpAfter(parts, keyId, how)
  const keys = new OpenKeys({ storage, repository, named, keyring, cost: options.cost, clearUp })
  return {
    id: record.vault,
    url: storage.url,
    storage,
    repository,
    ...parts,
    keys,
    check: async (how) => [...(await checkVault(parts, how)), ...(await keys.check(how))],
    async [Symbol.asyncDispose]() {
      await repository[Symbol.asyncDispose]()
      await storage[Symbol.asyncDispose]()
    },
  }
}

function openParts(parts: {
  readonly storage: Storage
  readonly sealing: Sealing
  readonly keyring: Keyring
  readonly rootPublicKey: string
  readonly log: Log | undefined
  /** Undefined on a host that only archives. */
  readonly identities?: Reading['identities'] | undefined
}): { readonly archive: Archive; readonly catalog: Catalog } {
  const { storage, sealing, keyring, rootPublicKey, log = silentLog, identities } = parts
  const trust = { vault: sealing.vault, keyring }
  const reading = identities && { ...trust, identities }
  const holder = new ProcessHolder()
  const records = new RecordStore(storage, sealing, reading)
  const refreshKeys = async (signal: AbortSignal) =>
    keyring.replaceBy(
      await readKeyring(storage, rootPublicKey, { signal, onBad: warnOfEnrolment(log) }),
    )
  const catalog = new SignedCatalog(storage, records, { readable: reading !== undefined })
  const how = { storage, sealing, trust, reading, holder, refreshKeys, log }
  return { archive: new LogArchive({ ...how, trims: catalog }), catalog }
}

type ClearUpOptions = {
  readonly signal: AbortSignal
  /** Only counts the objects of the log. */
  readonly dryRun?: boolean | undefined
}

/** Removes what a key that was struck off had signed, and records what is lost with it. */
async function clearUpAfter(
  parts: { readonly archive: Archive; readonly catalog: Catalog },
  keyId: string,
  { signal, dryRun = false }: ClearUpOptions,
): Promise<number> {
  const { archive, catalog } = parts
  if (!dryRun) await catalog.removeSigned(keyId, { signal })
  let removed = 0
  for (const source of await archive.sources({ signal })) {
    const { objects, lost } = await archive.removeSigned(source, keyId, { signal, dryRun })
    removed += objects
    const said = `the archiver with key ${keyId}, which wrote it, was struck off`
    if (lost && !dryRun) await catalog.addGap({ source, ...lost, said }, { signal })
  }
  return removed
}

function warnOfEnrolment(log: Log = silentLog) {
  return (object: string, fault: Fault) =>
    log.warn(`what an archiver signed is not believed: ${fault.message}`, { object })
}

async function checkVault(
  parts: { readonly archive: Archive; readonly catalog: Catalog },
  options: Options & { readonly readData: boolean },
): Promise<LogFinding[]> {
  const findings: LogFinding[] = []
  for (const source of await parts.archive.sources(options)) {
    findings.push(...(await parts.archive.check(source, options)))
  }
  return [...findings, ...(await parts.catalog.check(options))]
}
