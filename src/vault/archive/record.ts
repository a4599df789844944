import { createHash } from 'node:crypto'
import { Fault } from '#base/faults'
import type { Position } from '#change'
import { Fields } from '../fields.ts'
import { type Keyring, maySignLog, type Signer, signBytes } from '../signing.ts'
import { type Stanza, toBase64 } from './age/header.ts'
import { formatKey, type ObjectKind } from './names.ts'

/**
 * What a log object says of itself: signed, and readable without any secret. It stands in the object's age header as a
 * stanza that stock age skips; docs/formats/log-objects.md lists its fields.
 */
export type LogRecord = {
  readonly vault: string
  readonly kind: ObjectKind
  readonly source: string
  readonly history: string
  readonly segment: string
  readonly offset: number
  /** Native bytes. */
  readonly sizeBytes: number
  readonly first: string
  readonly next: string
  /** Nothing of the segment follows. */
  readonly closes: boolean
  readonly sequenceFirst: number
  readonly sequenceLast: number
  /** Link of the part before the first one in it; 64 zeros when there was none. */
  readonly previous: string
  /** Link of the last part in it. A part has none: its link is the hash of its record. */
  readonly link?: string | undefined
  /** Where the chain stood before, when another history, or another stretch of this one, begins here. */
  readonly after?: Position | undefined
  /** The log between `after` and `first` is lost. */
  readonly hole: boolean
  readonly commits: number
  readonly firstCommitUs?: bigint | undefined
  readonly lastCommitUs?: bigint | undefined
  /** The latest commit time in this object and in all before it: it never falls, whatever clocks do. */
  readonly latestUs?: bigint | undefined
  /** By the source's word its log was complete up to here at this time. */
  readonly completeUs?: bigint | undefined
  /** SHA-256 of the zstd stream: the plain text of the age file. */
  readonly sha256: string
  /** Binds the record to the file key: nobody can put it on a file of his own. */
  readonly keyProof: string
  /** Fencing number of the lease that it was written under. */
  readonly epoch: number
  /** The same, where it stands in the name. */
  readonly writerEpoch?: number | undefined
}

export const stanzaType = 'redoubt-log'
export const noLink = '0'.repeat(64)
const purpose = 'redoubt log record v1'
const version = 1

/** The stanza that carries the record, and the link of the object in the chain. */
export function signRecord(record: LogRecord, signer: Signer): { stanza: Stanza; link: string } {
  const body = encodeRecord(record)
  const signature = signBytes(signer, purpose, body)
  const stanza = { type: stanzaType, args: [signer.id, toBase64(signature)], body }
  return { stanza, link: record.link ?? linkOf(body) }
}

/** A record whose signature was checked. */
export type SignedRecord = {
  readonly record: LogRecord
  readonly link: string
  readonly signer: string
}

/** Finds the record in an object's header, and checks its signature, its signer's scope, and that the key is its own. */
export function readRecord(
  stanzas: readonly Stanza[],
  request: { readonly key: string; readonly vault: string; readonly keyring: Keyring },
): SignedRecord {
  const what = `log object ${request.key}`
  const stanza = stanzas.find(({ type }) => type === stanzaType)
  const [id, signatureText] = stanza?.args ?? []
  if (!stanza || id === undefined || signatureText === undefined) {
    throw new Fault('forged', `check the signature of ${what}: it has none`)
  }
  const signature = Buffer.from(signatureText, 'base64')
  const { body } = stanza
  const scope = request.keyring.verify({ id, purpose, bytes: body, signature, what })
  const record = decodeRecord(body, what)
  if (!maySignLog(scope, record.source)) {
    throw new Fault(
      'forged',
      `check ${what}: ${scope.name} may not sign the log of ${record.source}`,
    )
  }
  if (record.vault !== request.vault) {
    throw new Fault('forged', `check ${what}: it was written for vault ${record.vault}`)
  }
  if (formatKey(record) !== request.key) {
    throw new Fault('forged', `check ${what}: it was written as ${formatKey(record)}`)
  }
  return { record, link: record.link ?? linkOf(body), signer: id }
}

/** The key that an object says it was signed by: nothing is checked. */
export function readSignerClaim(stanzas: readonly Stanza[]): string | undefined {
  return stanzas.find(({ type }) => type === stanzaType)?.args[0]
}

/** Whether an object is the next one of the chain. A declared hole leaves one number out, so that a listing shows it. */
export function follows(before: SignedRecord, after: SignedRecord): boolean {
  const step = after.record.hole ? 2 : 1
  return (
    after.record.previous === before.link &&
    after.record.sequenceFirst === before.record.sequenceLast + step
  )
}

function linkOf(body: Buffer): string {
  return createHash('sha256').update(body).digest('hex')
}

function encodeRecord(record: LogRecord): Buffer {
  const { firstCommitUs, lastCommitUs, latestUs, completeUs, ...rest } = record
  const times = { firstCommitUs, lastCommitUs, latestUs, completeUs }
  const texts = Object.entries(times).map(([name, time]) => [name, time?.toString()])
  return Buffer.from(JSON.stringify({ version, ...rest, ...Object.fromEntries(texts) }))
}

function decodeRecord(body: Buffer, what: string): LogRecord {
  const fields = Fields.parse(body, `the record of ${what}`)
  if (fields.count('version') !== version) {
    throw new Fault(
      'unsupported',
      `read ${what}: its record has version ${fields.count('version')}`,
      {
        hint: 'A newer Redoubt wrote it: use that one.',
      },
    )
  }
  const time = (name: string) => fields.optional(name, (f, n) => f.bigint(n))
  return {
    vault: fields.text('vault'),
    kind: fields.oneOf('kind', ['part', 'run', 'full']),
    source: fields.text('source'),
    history: fields.text('history'),
    segment: fields.text('segment'),
    offset: fields.count('offset'),
    sizeBytes: fields.count('sizeBytes'),
    first: fields.text('first'),
    next: fields.text('next'),
    closes: fields.flag('closes'),
    sequenceFirst: fields.count('sequenceFirst'),
    sequenceLast: fields.count('sequenceLast'),
    previous: fields.hex('previous', 32),
    link: fields.optional('link', (f, n) => f.hex(n, 32)),
    after: fields.optional('after', (f, n) => readPosition(f.object(n))),
    hole: fields.flag('hole'),
    commits: fields.count('commits'),
    firstCommitUs: time('firstCommitUs'),
    lastCommitUs: time('lastCommitUs'),
    latestUs: time('latestUs'),
    completeUs: time('completeUs'),
    sha256: fields.hex('sha256', 32),
    keyProof: fields.hex('keyProof', 32),
    epoch: fields.count('epoch'),
    writerEpoch: fields.optional('writerEpoch', (f, n) => f.count(n)),
  }
}

function readPosition(fields: Fields): Position {
  return { history: fields.text('history'), at: fields.text('at') }
}
