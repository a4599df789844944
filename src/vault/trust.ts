import { Fault, isFault } from '#base/faults'
import type { Storage } from '#storage'
import { parseRecipient, type Recipient } from './archive/age/keys.ts'
import type { VaultSecrets } from './identity.ts'
import { formatSignedJson, parseSignedJson } from './signed-json.ts'
import { Keyring, type Signer } from './signing.ts'

/** What the vault says of itself, signed by its root key: readable without a password. */
export type VaultRecord = {
  readonly format: number
  readonly vault: string
  /** Whom everything is encrypted to. */
  readonly recipients: readonly Recipient[]
}

/** A key of the vault that may write the log of sources. */
export type Enrolment = {
  readonly name: string
  readonly publicKey: string
  readonly sources?: readonly string[] | undefined
}

type Options = { readonly signal: AbortSignal }

/** The layout of log and catalog that this program writes and reads; the repository has its own version. */
export const vaultFormat = 1
const vaultKey = 'catalog/vault.json'
const keysFolder = 'catalog/keys/'
const vaultPurpose = 'redoubt vault record v1'
const keyPurpose = 'redoubt key enrolment v1'
const recordBytesMax = 64 * 1024

export async function saveVaultRecord(
  storage: Storage,
  secrets: VaultSecrets,
  { signal }: Options,
): Promise<VaultRecord> {
  const recipients = [secrets.identity.recipient]
  const { vault, root } = secrets
  const value = { format: vaultFormat, vault, recipients: recipients.map(({ text }) => text) }
  await storage.put(vaultKey, formatSignedJson(vaultPurpose, value, root), { signal })
  return { format: vaultFormat, vault, recipients }
}

/** Reads the vault's record and checks it against the root key; undefined when there is none. */
export async function readVaultRecord(
  storage: Storage,
  keyring: Keyring,
  options: Options,
): Promise<VaultRecord | undefined> {
  const bytes = await readSmall(storage, vaultKey, options)
  if (!bytes) return undefined
  const what = `the vault record ${vaultKey}`
  const { fields, scope } = parseSignedJson(bytes, { purpose: vaultPurpose, keyring, what })
  if (scope.kind !== 'root') throw new Fault('forged', `check ${what}: ${scope.name} signed it`)
  const format = fields.count('format')
  if (format > vaultFormat) {
    throw new Fault('unsupported', `open the vault at ${storage.url}: it has format ${format}`, {
      hint: `This program knows formats up to ${vaultFormat}: use a newer one.`,
    })
  }
  const recipients = fields.list('recipients').map((text) => parseRecipient(String(text)))
  return { format, vault: fields.text('vault'), recipients }
}

/** Enrols a key: from now on restores and checks believe what it signs. */
export async function enrolKey(
  storage: Storage,
  enrolment: Enrolment,
  root: Signer,
  { signal }: Options,
): Promise<string> {
  const id = new Keyring().add(enrolment.publicKey, { kind: 'archiver', name: enrolment.name })
  await storage.put(keyOf(id), formatSignedJson(keyPurpose, { id, ...enrolment }, root), { signal })
  return id
}

/** Strikes a key off: nothing that it signed is believed any more. False when no enrolment of it was there. */
export async function strikeKey(storage: Storage, id: string, options: Options): Promise<boolean> {
  const wasThere = (await storage.stat(keyOf(id), options)) !== undefined
  await storage.delete(keyOf(id), options)
  return wasThere
}

/**
 * All enrolled keys beside the root key. An enrolment that is damaged, or not the root's, is told to `onBad`, and its key
 * is believed as little as one that was struck off: it must not lock the owner out of all the rest.
 */
export async function readKeyring(
  storage: Storage,
  rootPublicKey: string,
  options: Options & { readonly onBad: (object: string, fault: Fault) => void },
): Promise<Keyring> {
  const { signal, onBad } = options
  const roots = new Keyring()
  roots.add(rootPublicKey, { kind: 'root', name: 'root' })
  const keyring = new Keyring()
  keyring.add(rootPublicKey, { kind: 'root', name: 'root' })
  for await (const { key } of storage.list(keysFolder, { signal })) {
    const bytes = await readSmall(storage, key, { signal })
    if (!bytes) continue
    try {
      const { publicKey, ...scope } = decodeEnrolment(key, bytes, roots)
      keyring.add(publicKey, scope)
    } catch (error) {
      if (!isFault(error, 'forged', 'corrupt', 'unsupported')) throw error
      onBad(key, error)
    }
  }
  return keyring
}

function decodeEnrolment(key: string, bytes: Buffer, roots: Keyring) {
  const what = `the key enrolment ${key}`
  const { fields } = parseSignedJson(bytes, { purpose: keyPurpose, keyring: roots, what })
  const sources = fields.optional('sources', (f, name) => f.list(name).map(String))
  const publicKey = fields.text('publicKey')
  const scope = { kind: 'archiver', name: fields.text('name'), sources } as const
  const id = new Keyring().add(publicKey, scope)
  if (keyOf(id) !== key) throw new Fault('forged', `check ${what}: it was written as ${keyOf(id)}`)
  return { publicKey, ...scope }
}

function keyOf(id: string): string {
  return `${keysFolder}${id}.json`
}

async function readSmall(
  storage: Storage,
  key: string,
  { signal }: Options,
): Promise<Buffer | undefined> {
  const info = await storage.stat(key, { signal })
  if (!info) return undefined
  if (info.sizeBytes > recordBytesMax) {
    throw new Fault('corrupt', `read ${key}: it has ${info.sizeBytes} bytes`)
  }
  try {
    return await storage.get(key, { signal })
  } catch (error) {
    if (isFault(error, 'missing')) return undefined
    throw error
  }
}
