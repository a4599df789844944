import { open, unlink } from 'node:fs/promises'
import type { Surroundings, VaultAddress } from './open.ts'
import { findVault, openVaultAt, readPassword } from './open.ts'
import { openStorage } from '#storage/all'
import { Fault, fromSystem, isFault } from '#base/faults'
import { initVault, type Snapshot, type Vault, type VaultKey } from '#vault'
import { readNodes } from '#vault/repository/tree-reader'

export type { Snapshot } from '#vault'

export type MadeVault = { readonly url: string; readonly id: string; readonly repository: string }

/** Makes a vault: a repository, an identity and the vault's record, under one password. */
export async function makeVault(
  address: VaultAddress,
  name: string | undefined,
  around: Surroundings,
): Promise<MadeVault> {
  const { signal, log } = around
  const password = await readPassword(address, around)
  const storage = await findVault(openStorage(address.url, { signal, create: true }))
  await using vault = await initVault(storage, { password, name, signal, log })
  return { url: vault.url, id: vault.id, repository: vault.repository.id }
}

/** All snapshots, oldest first. */
export async function listSnapshots(
  address: VaultAddress,
  around: Surroundings,
): Promise<Snapshot[]> {
  await using vault = await openVaultAt(address, around)
  const snapshots = await vault.repository.snapshots(around)
  return snapshots.toSorted((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
}

export type ListedNode = {
  readonly path: string
  readonly kind: string
  readonly sizeBytes: bigint | undefined
  readonly mtimeNs: bigint
}

/** The nodes of one snapshot, or of a directory in it. */
export async function* listNodes(
  address: VaultAddress,
  at: string,
  around: Surroundings,
): AsyncGenerator<ListedNode, void, void> {
  const { chooseSnapshot } = await import('#backup/files')
  await using vault = await openVaultAt(address, around)
  const snapshot = chooseSnapshot(await vault.repository.snapshots(around), { at })
  await vault.repository.loadIndex(around)
  for await (const { path, node } of readNodes(vault.repository, snapshot.tree, around)) {
    const sizeBytes = node.kind === 'file' ? node.sizeBytes : undefined
    yield { path, kind: node.kind, sizeBytes, mtimeNs: node.mtimeNs }
  }
}

/** What opens a vault, or may write into it. */
export type KeyEntry =
  | ({ readonly kind: 'password' } & VaultKey)
  | {
      readonly kind: 'archiver'
      readonly id: string
      readonly name: string
      /** Whose log it may write; undefined for all. */
      readonly sources: readonly string[] | undefined
    }

/** Lists, adds, changes or removes the passwords of a vault, and enrols archivers or strikes them off. */
export async function changeKeys(
  address: VaultAddress,
  action: KeyAction,
  around: Surroundings,
): Promise<KeyEntry[]> {
  await using vault = await openVaultAt(address, around)
  switch (action.kind) {
    case 'list':
      break
    case 'add':
      await vault.keys.add(action.name, await action.password(), around)
      break
    case 'change':
      await vault.keys.change(await action.password(), around)
      break
    case 'remove':
      await vault.keys.remove(action.name, around)
      break
    case 'enrol':
      await enrol(vault, action, around)
      break
    case 'strike': {
      const removed = await vault.keys.strike(action.id, { ...around, withLog: action.withLog })
      around.log.info(`removed ${removed} log objects of ${action.id}: take a new base now`)
      break
    }
  }
  const passwords = await vault.keys.list(around)
  const archivers = vault.keys.enrolled().filter(({ kind }) => kind === 'archiver')
  return [
    ...passwords.map((key) => ({ kind: 'password' as const, ...key })),
    ...archivers.map(({ id, name, sources }) => ({
      kind: 'archiver' as const,
      id,
      name,
      sources,
    })),
  ]
}

/** The file first, new and for its owner alone: a key that could not be kept is not enrolled. */
async function enrol(
  vault: Vault,
  { name, file, sources }: Extract<KeyAction, { kind: 'enrol' }>,
  around: Surroundings,
): Promise<void> {
  const doing = `write the archiver file ${file}`
  const handle = await open(file, 'wx', 0o600).catch((error: unknown) => {
    const fault = fromSystem(error, doing)
    if (!isFault(fault, 'exists')) throw fault
    throw new Fault('exists', `${doing}: there is one already`, {
      hint: 'It may be the key of a host that archives: name another file.',
      cause: error,
    })
  })
  try {
    const list = sources.length > 0 ? sources : undefined
    await handle.writeFile(await vault.keys.enrol(name, { signal: around.signal, sources: list }))
    await handle.sync()
  } catch (error) {
    await unlink(file)
    throw fromSystem(error, doing)
  } finally {
    await handle.close()
  }
}

export type KeyAction =
  | { readonly kind: 'list' }
  | { readonly kind: 'add'; readonly name: string; readonly password: () => Promise<string> }
  | { readonly kind: 'change'; readonly password: () => Promise<string> }
  | { readonly kind: 'remove'; readonly name: string }
  | {
      readonly kind: 'enrol'
      readonly name: string
      readonly file: string
      readonly sources: readonly string[]
    }
  | {
      readonly kind: 'strike'
      readonly id: string
      /** What it wrote of logs may be removed. */
      readonly withLog: boolean
    }
