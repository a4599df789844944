import { Fault, isFault } from '#base/faults'
import type { Storage } from '#storage'
import { decryptWithPassphrase, encryptWithPassphrase } from './archive/age/age.ts'
import { createIdentity, formatIdentity, type Identity, parseIdentity } from './archive/age/keys.ts'
import { decodeText, encodeText } from './archive/names.ts'
import { createSigner, formatSigner, parseSigner, type Signer } from './signing.ts'

/** The secrets of a vault: who can decrypt its log and catalog, and the root of what is signed in it. */
export type VaultSecrets = {
  readonly vault: string
  readonly identity: Identity
  readonly root: Signer
}

/** One identity file: the same secrets under one password. */
export type NamedSecrets = {
  readonly name: string
  /** The key file of the repository that opens with the same password. */
  readonly repositoryKey: string
  /** What that key file holds, so that one derivation opens both; undefined in files that do not say it. */
  readonly masterKeys?: string | undefined
  readonly secrets: VaultSecrets
}

type Options = { readonly signal: AbortSignal }

const folder = 'identity/'
const extension = '.age'
/** Passwords of a vault that are tried: each costs scrypt. */
const identitiesMax = 20
const fileBytesMax = 16 * 1024

export function createSecrets(vault: string): VaultSecrets {
  return { vault, identity: createIdentity(), root: createSigner() }
}

/** Names of the identity files, in order. */
export async function listIdentities(storage: Storage, options: Options): Promise<string[]> {
  const names: string[] = []
  for await (const { key } of storage.list(folder, options)) {
    if (!key.endsWith(extension)) continue
    const name = decodeText(key.slice(folder.length, -extension.length))
    if (name !== undefined) names.push(name)
  }
  return names
}

/** Writes an identity file; with `replace` over the one of that name, else `exists` refuses. */
export async function saveIdentity(
  storage: Storage,
  named: NamedSecrets,
  password: string,
  options: Options & { readonly replace: boolean; readonly workFactor?: number | undefined },
): Promise<void> {
  const { signal, replace } = options
  const key = keyOf(named.name)
  if (!replace && (await storage.stat(key, { signal }))) {
    throw new Fault(
      'exists',
      `add identity ${named.name} to ${storage.url}: there is one already`,
      {
        hint: 'Choose another name, or remove that one first.',
      },
    )
  }
  const text = Buffer.from(formatSecrets(named))
  const bytes = await encryptWithPassphrase(password, text, options.workFactor)
  if (!(await decryptWithPassphrase(password, bytes)).equals(text)) {
    throw new Fault('corrupt', `write identity ${named.name}: it does not decrypt to what went in`)
  }
  await storage.put(key, bytes, { signal })
}

/** Opens the identity file that the password fits; `wrong-key` when none does, `missing` when there is none at all. */
export async function openIdentity(
  storage: Storage,
  password: string,
  options: Options,
): Promise<NamedSecrets> {
  const names = await listIdentities(storage, options)
  if (names.length === 0) {
    throw new Fault('missing', `open the vault at ${storage.url}: it has no identity file`, {
      hint: 'Make one with redoubt vault init; it also adds what a plain restic repository lacks.',
    })
  }
  let damaged: unknown
  for (const name of names.slice(0, identitiesMax)) {
    try {
      const opened = await tryIdentity(storage, name, password, options)
      if (opened) return opened
    } catch (error) {
      // One damaged identity must not lock out those who hold another password.
      if (!isFault(error, 'corrupt')) throw error
      damaged ??= error
    }
  }
  if (damaged !== undefined) throw damaged
  throw new Fault('wrong-key', `open the vault at ${storage.url}: the password opens no identity`, {
    hint: 'Give the password of one of its keys; there is no other way in.',
  })
}

async function tryIdentity(
  storage: Storage,
  name: string,
  password: string,
  { signal }: Options,
): Promise<NamedSecrets | undefined> {
  const key = keyOf(name)
  const info = await storage.stat(key, { signal })
  if (!info) return undefined
  if (info.sizeBytes > fileBytesMax) {
    throw new Fault('corrupt', `read ${key}: it has ${info.sizeBytes} bytes`)
  }
  const bytes = await storage.get(key, { signal })
  let text: Buffer
  try {
    text = await decryptWithPassphrase(password, bytes)
  } catch (error) {
    if (isFault(error, 'wrong-key')) return undefined
    throw error instanceof Fault
      ? new Fault(error.code, `read ${key}: ${error.message}`, { cause: error })
      : error
  }
  return parseSecrets(name, text.toString('utf8'))
}

export async function removeIdentity(
  storage: Storage,
  name: string,
  { signal }: Options,
): Promise<void> {
  await storage.delete(keyOf(name), { signal })
}

function keyOf(name: string): string {
  return `${folder}${encodeText(name)}${extension}`
}

const masterKeysLabel = 'keys of the repository'

/** An age identity file as `age -d -i` takes it: what is ours stands in its comments. */
function formatSecrets({ name, repositoryKey, masterKeys, secrets }: NamedSecrets): string {
  return [
    '# The secrets of a Redoubt vault. Whoever has them can read all of it and sign in its name.',
    `# vault: ${secrets.vault}`,
    `# name: ${JSON.stringify(name)}`,
    `# repository key: ${repositoryKey}`,
    ...(masterKeys === undefined ? [] : [`# ${masterKeysLabel}: ${masterKeys}`]),
    `# root signing key: ${formatSigner(secrets.root)}`,
    `# public key: ${secrets.identity.recipient.text}`,
    formatIdentity(secrets.identity),
    '',
  ].join('\n')
}

function parseSecrets(name: string, text: string): NamedSecrets {
  const find = (label: string) => text.match(new RegExp(`^# ${label}: (.+)$`, 'm'))?.[1]
  const field = (label: string) => {
    const value = find(label)
    if (value === undefined) throw new Fault('corrupt', `read identity ${name}: it has no ${label}`)
    return value
  }
  const secret = /^AGE-SECRET-KEY-1\S+$/m.exec(text)?.[0]
  if (secret === undefined) throw new Fault('corrupt', `read identity ${name}: it has no age key`)
  return {
    name,
    repositoryKey: field('repository key'),
    masterKeys: find(masterKeysLabel),
    secrets: {
      vault: field('vault'),
      identity: parseIdentity(secret),
      root: parseSigner(field('root signing key')),
    },
  }
}
