import {
  createCipheriv,
  createDecipheriv,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
  scrypt,
} from 'node:crypto'
import { Fault } from '#base/faults'
import { corrupt, fromBase64, type Stanza, toBase64 } from './header.ts'
import { type Identity, publicKey, rawPublicKey, type Recipient } from './keys.ts'

export const fileKeySize = 16
const tagSize = 16
const saltSize = 16
const x25519Info = 'age-encryption.org/v1/X25519'
const scryptInfo = 'age-encryption.org/v1/scrypt'
const zeroNonce = Buffer.alloc(12)

/**
 * 2^15 blocks of 1 KiB: 32 MiB and about 0.1 s, the cost of the repository's key under the same password: more here
 * would only slow the owner down, since who guesses would guess there. Stock age takes any up to 22.
 */
export const workFactorDefault = 15
/** A file that asks for more is refused: 2^20 would take a gibibyte of memory. */
const workFactorMax = 19

/** Wraps the file key for one X25519 recipient. */
export function wrapForRecipient(fileKey: Buffer, recipient: Recipient): Stanza {
  const ephemeral = generateKeyPairSync('x25519')
  const share = rawPublicKey(ephemeral.publicKey)
  const key = sharedKey(ephemeral.privateKey, recipient.key, Buffer.concat([share, recipient.raw]))
  return { type: 'X25519', args: [toBase64(share)], body: seal(key, fileKey) }
}

/** The file key, when the stanza was wrapped for this identity; undefined when for another. */
export function unwrapWithIdentity(stanza: Stanza, identity: Identity): Buffer | undefined {
  if (stanza.type !== 'X25519') return undefined
  const [shareText, ...more] = stanza.args
  if (shareText === undefined || more.length > 0)
    throw corrupt('an X25519 stanza needs one argument')
  const share = fromBase64(shareText)
  if (share.length !== 32) throw corrupt('an X25519 share has the wrong size')
  checkBody(stanza)
  const salt = Buffer.concat([share, identity.recipient.raw])
  let key: Buffer
  try {
    key = sharedKey(identity.secret, publicKey(share), salt)
  } catch (error) {
    // OpenSSL refuses a share of low order, as the format demands.
    throw new Fault('corrupt', 'read an age header: an X25519 share is of low order', {
      cause: error,
    })
  }
  return open(key, stanza.body)
}

/** Wraps the file key under a passphrase; the stanza must then be the only one of its header. */
export async function wrapWithPassphrase(
  fileKey: Buffer,
  passphrase: string,
  workFactor = workFactorDefault,
): Promise<Stanza> {
  const salt = randomBytes(saltSize)
  const key = await scryptKey(passphrase, salt, workFactor)
  return { type: 'scrypt', args: [toBase64(salt), String(workFactor)], body: seal(key, fileKey) }
}

/** The file key; undefined when the passphrase is another. */
export async function unwrapWithPassphrase(
  stanza: Stanza,
  passphrase: string,
): Promise<Buffer | undefined> {
  const [saltText = '', factor = '', ...more] = stanza.args
  if (more.length > 0) throw corrupt('a scrypt stanza needs two arguments')
  const salt = fromBase64(saltText)
  if (salt.length !== saltSize) throw corrupt('a scrypt salt has the wrong size')
  if (!/^[1-9]\d?$/.test(factor)) throw corrupt(`a scrypt work factor is no number: ${factor}`)
  if (Number(factor) > workFactorMax) {
    throw corrupt(`the scrypt work factor ${factor} is beyond ${workFactorMax}`)
  }
  checkBody(stanza)
  return open(await scryptKey(passphrase, salt, Number(factor)), stanza.body)
}

function checkBody(stanza: Stanza): void {
  if (stanza.body.length !== fileKeySize + tagSize) {
    throw corrupt(`the body of the ${stanza.type} stanza has the wrong size`)
  }
}

function sharedKey(secret: KeyObject, other: KeyObject, salt: Buffer): Buffer {
  const shared = diffieHellman({ privateKey: secret, publicKey: other })
  return Buffer.from(hkdfSync('sha256', shared, salt, x25519Info, 32))
}

function scryptKey(passphrase: string, salt: Buffer, workFactor: number): Promise<Buffer> {
  const N = 2 ** workFactor
  const settings = { N, r: 8, p: 1, maxmem: 128 * 8 * N + 64 * 1024 * 1024 }
  return new Promise((resolve, reject) => {
    const labelled = Buffer.concat([Buffer.from(scryptInfo), salt])
    scrypt(passphrase, labelled, 32, settings, (error, key) =>
      error ? reject(error) : resolve(key),
    )
  })
}

function seal(key: Buffer, fileKey: Buffer): Buffer {
  const cipher = createCipheriv('chacha20-poly1305', key, zeroNonce, { authTagLength: tagSize })
  return Buffer.concat([cipher.update(fileKey), cipher.final(), cipher.getAuthTag()])
}

function open(key: Buffer, body: Buffer): Buffer | undefined {
  const decipher = createDecipheriv('chacha20-poly1305', key, zeroNonce, { authTagLength: tagSize })
  decipher.setAuthTag(body.subarray(-tagSize))
  const fileKey = decipher.update(body.subarray(0, -tagSize))
  try {
    decipher.final()
  } catch {
    // Node has no other sign for a wrong tag; the caller tells a wrong key from damage by the header's MAC.
    return undefined
  }
  return fileKey
}
