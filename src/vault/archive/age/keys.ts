import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { Fault } from '#base/faults'
import { decodeBech32, encodeBech32 } from './bech32.ts'

/** Whom a file is encrypted to: an X25519 public key. */
export type Recipient = {
  /** `age1...` */
  readonly text: string
  readonly raw: Buffer
  readonly key: KeyObject
}

/** Who can decrypt: an X25519 secret key and its public side. */
export type Identity = { readonly secret: KeyObject; readonly recipient: Recipient }

const recipientPrefix = 'age'
const identityPrefix = 'age-secret-key-'
const keySize = 32

// RFC 8410, section 7: the fixed bytes of PKCS #8 and SubjectPublicKeyInfo before a raw X25519 key.
const secretHead = Buffer.from('302e020100300506032b656e04220420', 'hex')
const publicHead = Buffer.from('302a300506032b656e032100', 'hex')

export function createIdentity(): Identity {
  return identityOf(generateKeyPairSync('x25519').privateKey)
}

/** Reads one `AGE-SECRET-KEY-1...`. */
export function parseIdentity(text: string): Identity {
  const raw = decodeBech32(text, identityPrefix, 'an age identity')
  if (raw.length !== keySize) throw new Fault('usage', `read an age identity: ${raw.length} bytes`)
  const der = Buffer.concat([secretHead, raw])
  return identityOf(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }))
}

/** Writes the secret key as `AGE-SECRET-KEY-1...`, as stock age reads it. */
export function formatIdentity(identity: Identity): string {
  const der = identity.secret.export({ format: 'der', type: 'pkcs8' })
  return encodeBech32(identityPrefix, der.subarray(-keySize)).toUpperCase()
}

/** Reads one `age1...`. */
export function parseRecipient(text: string): Recipient {
  const raw = decodeBech32(text, recipientPrefix, `the age recipient ${text}`)
  if (raw.length !== keySize) {
    throw new Fault('usage', `read the age recipient ${text}: ${raw.length} bytes`)
  }
  return { text: text.toLowerCase(), raw, key: publicKey(raw) }
}

/** A raw X25519 public key as node takes it. */
export function publicKey(raw: Uint8Array): KeyObject {
  const der = Buffer.concat([publicHead, raw])
  return createPublicKey({ key: der, format: 'der', type: 'spki' })
}

/** The raw bytes of an X25519 public key. */
export function rawPublicKey(key: KeyObject): Buffer {
  return key.export({ format: 'der', type: 'spki' }).subarray(-keySize)
}

function identityOf(secret: KeyObject): Identity {
  const key = createPublicKey(secret)
  const raw = rawPublicKey(key)
  return { secret, recipient: { text: encodeBech32(recipientPrefix, raw), raw, key } }
}
