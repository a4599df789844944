import { Fault, isFault } from '#base/faults'
import { toJson } from '#base/log'
import { Fields } from './fields.ts'
import { type Keyring, type Scope, type Signer, signBytes } from './signing.ts'

/** A small record that anyone may read and only an enrolled key can have written. */
export type SignedJson = { readonly fields: Fields; readonly scope: Scope; readonly signer: string }

/** Writes `{"key", "signature", "record"}`; the record is a text within, so that the very bytes signed are kept. */
export function formatSignedJson(purpose: string, value: object, signer: Signer): Buffer {
  const record = toJson(value)
  const signature = signBytes(signer, purpose, Buffer.from(record)).toString('base64')
  return Buffer.from(`${JSON.stringify({ key: signer.id, signature, record }, undefined, 1)}\n`)
}

/** Checks and reads what `formatSignedJson` wrote; `what` names it in messages. */
export function parseSignedJson(
  bytes: Buffer,
  request: { readonly purpose: string; readonly keyring: Keyring; readonly what: string },
): SignedJson {
  const { purpose, keyring, what } = request
  const { id, signature, record } = readEnvelope(bytes, what)
  const scope = keyring.verify({ id, purpose, bytes: Buffer.from(record), signature, what })
  return { fields: Fields.parse(record, what), scope, signer: id }
}

function readEnvelope(
  bytes: Buffer,
  what: string,
): { readonly id: string; readonly signature: Buffer; readonly record: string } {
  const outer = Fields.parse(bytes, what)
  const signature = Buffer.from(outer.text('signature'), 'base64')
  if (signature.length !== 64)
    throw new Fault('corrupt', `read ${what}: its signature is no Ed25519`)
  return { id: outer.text('key'), signature, record: outer.text('record') }
}

/** The key that a record says it was signed by, unchecked; undefined for what is no such record. */
export function claimedSigner(bytes: Buffer): string | undefined {
  try {
    return Fields.parse(bytes, 'a signed record').text('key')
  } catch (error) {
    if (isFault(error, 'corrupt')) return undefined
    throw error
  }
}
