import { Fault } from '#base/faults'
import { parseRecipient, type Recipient } from './archive/age/keys.ts'
import { Fields } from './fields.ts'
import { formatSigner, parseSigner, type Signer } from './signing.ts'

/**
 * What a host that only archives keeps: no secret of the vault, just its own signing key and whom to encrypt to. It can
 * write its sources' log, and read nothing.
 */
export type ArchiverState = {
  readonly vault: string
  readonly rootPublicKey: string
  readonly recipients: readonly Recipient[]
  readonly signer: Signer
}

/** Writes the state as JSON, to be kept in a file that nobody else can read. */
export function formatArchiverState(state: ArchiverState): string {
  const { vault, rootPublicKey, recipients, signer } = state
  const texts = recipients.map(({ text }) => text)
  const value = { vault, rootPublicKey, recipients: texts, signingKey: formatSigner(signer) }
  return `${JSON.stringify(value, undefined, 1)}\n`
}

/** Reads it back; `what` names it in messages. */
export function parseArchiverState(text: string, what: string): ArchiverState {
  const fields = Fields.parse(text, what)
  try {
    return {
      vault: fields.text('vault'),
      rootPublicKey: fields.text('rootPublicKey'),
      recipients: fields.list('recipients').map((one) => parseRecipient(String(one))),
      signer: parseSigner(fields.text('signingKey')),
    }
  } catch (error) {
    if (!(error instanceof Fault) || error.message.includes(what)) throw error
    throw new Fault(error.code, `read ${what}: ${error.message}`, { cause: error })
  }
}
