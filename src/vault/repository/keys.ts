import { randomBytes, scrypt, type ScryptOptions } from 'node:crypto'
import { hostname, userInfo } from 'node:os'
import { Fault } from '#base/faults'
import type { Storage } from '#storage'
import { sha256Hex } from './blob-id.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'
import type { Kernels } from './kernels.ts'
import { parseJson, takeBytes, takeInteger, takeObject } from './json.ts'
import { keysTriedMax, scryptMemoryBytesMax } from './limits.ts'
import type { AddKeyOptions, RepositoryKey } from './repository.ts'
import { listFiles, readFile, type ReadOptions } from './stored-files.ts'

/** The cost of turning a password into a key: N, r and p of scrypt (RFC 7914). */
export type PasswordCost = { readonly n: number; readonly r: number; readonly p: number }

/** About 0.1 s and 32 MiB: what stock restic comes to on common machines. */
export const defaultPasswordCost: PasswordCost = { n: 32_768, r: 8, p: 1 }

const saltBytes = 64

/** What opens a repository without deriving a key from a password: kept under that same password elsewhere. */
export type KnownKeys = { readonly keyId: string; readonly masterKeys: string }

export function createMasterKeys(): EnvelopeKeys {
  return keysFrom(randomBytes(64))
}

function keysFrom(bytes: Buffer): EnvelopeKeys {
  return {
    encrypt: bytes.subarray(0, 32),
    macK: bytes.subarray(32, 48),
    macR: bytes.subarray(48, 64),
  }
}

async function deriveKeys(
  password: string,
  salt: Buffer,
  { n, r, p }: PasswordCost,
): Promise<EnvelopeKeys> {
  // Node refuses what needs more than 32 MiB unless told; the constant covers scrypt's own small buffers.
  const options: ScryptOptions = { N: n, r, p, maxmem: 128 * r * (n + p + 2) + 1024 * 1024 }
  const bytes = await new Promise<Buffer>((resolve, reject) => {
    scrypt(password, salt, 64, options, (error, key) => (error ? reject(error) : resolve(key)))
  })
  return keysFrom(bytes)
}

/** Writes a key file that opens with `password`; returns its id. */
export async function saveKey(
  storage: Storage,
  master: EnvelopeKeys,
  password: string,
  options: ReadOptions & AddKeyOptions & { cost?: PasswordCost | undefined; kernels: Kernels },
): Promise<string> {
  if (password === '') {
    throw new Fault('usage', 'add key: the password is empty', {
      hint: 'Set REDOUBT_VAULT_PASSWORD or REDOUBT_VAULT_PASSWORD_FILE.',
    })
  }
  const cost = options.cost ?? defaultPasswordCost
  const salt = randomBytes(saltBytes)
  using own = new EnvelopeCipher(await deriveKeys(password, salt, cost), options.kernels)
  const secret = formatMasterKeys(master)
  const text = JSON.stringify({
    created: new Date().toISOString(),
    username: userName(),
    hostname: hostname(),
    kdf: 'scrypt',
    N: cost.n,
    r: cost.r,
    p: cost.p,
    salt: salt.toString('base64'),
    data: own.seal(Buffer.from(secret)).toString('base64'),
  })
  const bytes = Buffer.from(text)
  const id = sha256Hex(bytes)
  await options.beforeStored?.(id)
  await storage.put(`keys/${id}`, bytes, { signal: options.signal })
  return id
}

/** The JSON of the master keys, as it lies encrypted in a key file. */
export function formatMasterKeys(master: EnvelopeKeys): string {
  return JSON.stringify({
    mac: { k: toBase64(master.macK), r: toBase64(master.macR) },
    encrypt: toBase64(master.encrypt),
  })
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}

export function userName(): string {
  try {
    return userInfo().username
  } catch {
    // A user id without a name, as in many containers.
    return String(process.getuid?.() ?? '')
  }
}

type KeyFile = PasswordCost & {
  readonly salt: Buffer
  readonly data: Buffer
  readonly about: RepositoryKey
}

function decodeKeyFile(id: string, bytes: Buffer): KeyFile {
  const what = `key ${id.slice(0, 8)}`
  const json = takeObject(parseJson(bytes.toString(), what), what)
  if (json['kdf'] !== 'scrypt') {
    throw new Fault(
      'corrupt',
      `read ${what}: unknown key derivation ${String(json['kdf']).slice(0, 20)}`,
    )
  }
  const n = takeInteger(json['N'], 2 ** 30, `${what}, N`)
  const r = takeInteger(json['r'], 2 ** 16, `${what}, r`)
  const p = takeInteger(json['p'], 64, `${what}, p`)
  if (n < 2 || (n & (n - 1)) !== 0 || r < 1 || p < 1 || 128 * n * r > scryptMemoryBytesMax) {
    throw new Fault(
      'corrupt',
      `read ${what}: scrypt parameters N=${n} r=${r} p=${p} are out of bounds`,
    )
  }
  const text = (name: string) => (typeof json[name] === 'string' ? json[name] : '')
  const about = {
    id,
    created: text('created'),
    username: text('username'),
    hostname: text('hostname'),
  }
  return {
    n,
    r,
    p,
    about,
    salt: takeBytes(json['salt'], `${what}, salt`),
    data: takeBytes(json['data'], `${what}, data`),
  }
}

function parseMasterKeys(text: string, what: string): EnvelopeKeys {
  const json = takeObject(parseJson(text, what), what)
  const mac = takeObject(json['mac'], what)
  return {
    encrypt: takeBytes(json['encrypt'], what, 32),
    macK: takeBytes(mac['k'], what, 16),
    macR: takeBytes(mac['r'], what, 16),
  }
}

/** Tries the password on the key files, at most 20 of them, those that open first win; `wrong-key` if none does. */
export async function openKeys(
  storage: Storage,
  password: string,
  options: ReadOptions & { kernels: Kernels },
): Promise<{ readonly keyId: string; readonly master: EnvelopeKeys }> {
  let tried = 0
  let damaged: unknown
  for (const { id, sizeBytes } of await listFiles(storage, 'keys', options)) {
    if (tried >= keysTriedMax) break
    try {
      const file = decodeKeyFile(id, await readFile(storage, 'keys', { id, sizeBytes }, options))
      tried++
      using own = new EnvelopeCipher(await deriveKeys(password, file.salt, file), options.kernels)
      const plain = own.tryOpen(file.data)
      if (plain) {
        return { keyId: id, master: parseMasterKeys(plain.toString(), `key ${id.slice(0, 8)}`) }
      }
    } catch (error) {
      // One damaged key must not lock out those who hold another.
      if (!(error instanceof Fault) || error.code !== 'corrupt') throw error
      damaged ??= error
    }
  }
  if (tried === 0 && damaged !== undefined) throw damaged
  throw new Fault(
    'wrong-key',
    `open ${storage.url}: none of ${tried} keys opens with this password`,
    {
      hint: 'Check REDOUBT_VAULT_PASSWORD or REDOUBT_VAULT_PASSWORD_FILE.',
      cause: damaged,
    },
  )
}

/** The keys as `masterKeys` of a repository gave them out; undefined once the key file they came from is gone. */
export async function recallKeys(
  storage: Storage,
  { keyId, masterKeys }: KnownKeys,
  { signal }: ReadOptions,
): Promise<{ readonly keyId: string; readonly master: EnvelopeKeys } | undefined> {
  if (!(await storage.stat(`keys/${keyId}`, { signal }))) return undefined
  return { keyId, master: parseMasterKeys(masterKeys, 'the keys of the repository') }
}

/** The key files there are; what cannot be read of one is an error. */
export async function listKeys(storage: Storage, options: ReadOptions): Promise<RepositoryKey[]> {
  const keys: RepositoryKey[] = []
  for (const file of await listFiles(storage, 'keys', options)) {
    keys.push(await readKey(storage, file, options))
  }
  return keys
}

/** What one key file says of itself; throws `corrupt` when it is damaged. */
export async function readKey(
  storage: Storage,
  file: { readonly id: string; readonly sizeBytes: number },
  options: ReadOptions,
): Promise<RepositoryKey> {
  return decodeKeyFile(file.id, await readFile(storage, 'keys', file, options)).about
}
