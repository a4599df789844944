import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto'
import { Fault } from '#base/faults'

/** Who signs: an Ed25519 key. Its `id` is the first 16 hexadecimal digits of the SHA-256 of the raw public key. */
export type Signer = { readonly id: string; readonly secret: KeyObject }

/** What a signing key may vouch for. */
export type Scope = {
  /** The vault's root key may sign everything, enrolments included. */
  readonly kind: 'root' | 'archiver'
  readonly name: string
  /** Sources whose log an archiver may write; undefined for all. */
  readonly sources?: readonly string[] | undefined
}

type Enrolled = Scope & { readonly key: KeyObject }

// RFC 8410, section 7: the fixed bytes around a raw Ed25519 key.
const secretHead = Buffer.from('302e020100300506032b657004220420', 'hex')
const publicHead = Buffer.from('302a300506032b6570032100', 'hex')
const keySize = 32

export function createSigner(): Signer {
  return signerOf(generateKeyPairSync('ed25519').privateKey)
}

/** The 32 secret bytes as base64. */
export function formatSigner(signer: Signer): string {
  const der = signer.secret.export({ format: 'der', type: 'pkcs8' })
  return der.subarray(-keySize).toString('base64')
}

export function parseSigner(text: string): Signer {
  const raw = Buffer.from(text, 'base64')
  if (raw.length !== keySize)
    throw new Fault('corrupt', 'read a signing key: it has the wrong size')
  const der = Buffer.concat([secretHead, raw])
  return signerOf(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }))
}

/** The public side as base64 of its 32 raw bytes. */
export function publicText(signer: Signer): string {
  return rawKey(createPublicKey(signer.secret)).toString('base64')
}

/** Signs `bytes` for one purpose: a signature of one kind of record is none of another. */
export function signBytes(signer: Signer, purpose: string, bytes: Uint8Array): Buffer {
  return sign(null, labelled(purpose, bytes), signer.secret)
}

/** The keys that the vault trusts. */
export class Keyring {
  readonly #keys = new Map<string, Enrolled>()

  add(publicKeyText: string, scope: Scope): string {
    const raw = Buffer.from(publicKeyText, 'base64')
    if (raw.length !== keySize) {
      throw new Fault('corrupt', `read the public key of ${scope.name}: it has the wrong size`)
    }
    const der = Buffer.concat([publicHead, raw])
    const id = idOf(raw)
    this.#keys.set(id, {
      ...scope,
      key: createPublicKey({ key: der, format: 'der', type: 'spki' }),
    })
    return id
  }

  /** What a key may vouch for; undefined when it is not enrolled. */
  scopeOf(id: string): Scope | undefined {
    return this.#keys.get(id)
  }

  remove(id: string): void {
    this.#keys.delete(id)
  }

  /** Takes over what another keyring trusts, and nothing else. */
  replaceBy(other: Keyring): void {
    this.#keys.clear()
    for (const [id, enrolled] of other.#keys) this.#keys.set(id, enrolled)
  }

  list(): readonly (Scope & { readonly id: string })[] {
    return Array.from(this.#keys, ([id, { kind, name, sources }]) => ({ id, kind, name, sources }))
  }

  /** Checks a signature and returns what its key may vouch for; `forged` names the thing otherwise. */
  verify(request: {
    readonly id: string
    readonly purpose: string
    readonly bytes: Uint8Array
    readonly signature: Uint8Array
    readonly what: string
  }): Scope {
    const { id, purpose, bytes, signature, what } = request
    const enrolled = this.#keys.get(id)
    if (!enrolled) {
      throw new Fault('forged', `check the signature of ${what}: key ${id} is not enrolled`, {
        hint: 'Treat what it holds as written by a stranger; vault key list shows the keys enrolled.',
      })
    }
    if (!verify(null, labelled(purpose, bytes), enrolled.key, signature)) {
      throw new Fault('forged', `check the signature of ${what}: it is not one of key ${id}`)
    }
    return enrolled
  }
}

/** Whether a key may sign the log of a source. */
export function maySignLog(scope: Scope, source: string): boolean {
  return scope.kind === 'root' || scope.sources === undefined || scope.sources.includes(source)
}

function signerOf(secret: KeyObject): Signer {
  return { id: idOf(rawKey(createPublicKey(secret))), secret }
}

function rawKey(key: KeyObject): Buffer {
  return key.export({ format: 'der', type: 'spki' }).subarray(-keySize)
}

function idOf(raw: Buffer): string {
  return createHash('sha256').update(raw).digest('hex').slice(0, 16)
}

function labelled(purpose: string, bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${purpose}\n`), bytes])
}
