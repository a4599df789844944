import { parseSizeBytes } from '#base/bytes'
import { Fault } from '#base/faults'

/** What an `s3://` URL says. */
export type S3Place = {
  readonly url: string
  /** Bucket and prefix, for messages. */
  readonly name: string
  readonly bucket: string
  /** Empty, or ends with `/`. */
  readonly prefix: string
  readonly endpoint?: string | undefined
  readonly region?: string | undefined
  /**
   * By default only where an endpoint is named: stores of one's own rarely have a host name a
   * bucket.
   */
  readonly pathStyle?: boolean | undefined
  /** The section of the AWS configuration files to take credentials from. */
  readonly profile?: string | undefined
  readonly storageClass?: string | undefined
  readonly sse?: string | undefined
  readonly sseKmsKeyId?: string | undefined
  readonly lockMode: 'COMPLIANCE' | 'GOVERNANCE'
  readonly partBytes: number
}

const options = [
  'endpoint',
  'region',
  'path-style',
  'profile',
  'storage-class',
  'sse',
  'sse-kms-key-id',
  'lock-mode',
  'part-size',
]

/** S3 refuses smaller parts, but for the last one. */
const partBytesMin = 5 * 1024 * 1024
/** Four parts and the one that fills up are in memory at a time. */
const partBytesMax = 64 * 1024 * 1024
const partBytesDefault = 16 * 1024 * 1024

/**
 * Reads `s3://bucket/prefix?endpoint=..&region=..`; throws `usage` and names what makes no sense.
 */
export function parseS3Url(text: string): S3Place {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url && (url.username !== '' || url.password !== '')) {
    throw new Fault('usage', 'open s3 URL: credentials do not belong into it', {
      hint: 'Give them by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by profile=NAME of the AWS files.',
    })
  }
  const bucket = url?.host ?? ''
  const shown = text.replace(/\/\/[^/?#]*@/, '//...@')
  if (!url || !/^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$/.test(bucket)) {
    throw new Fault('usage', `open ${shown}: not of the form s3://bucket/prefix`)
  }
  const bad = (what: string, hint?: string) =>
    new Fault('usage', `open ${shown}: ${what}`, { hint })
  const read = (name: string) => url.searchParams.get(name) || undefined
  for (const name of url.searchParams.keys()) {
    if (!options.includes(name)) {
      throw bad(`unknown option ${JSON.stringify(name)}`, `Known are ${options.join(', ')}.`)
    }
  }
  const endpoint = read('endpoint')
  if (endpoint !== undefined) checkEndpoint(endpoint, bad)
  const prefix = readPrefix(url.pathname, bad)
  const sse = read('sse')
  if (sse !== undefined && !['AES256', 'aws:kms', 'aws:kms:dsse'].includes(sse)) {
    throw bad(`unknown encryption sse=${sse}`, 'Known are AES256, aws:kms, aws:kms:dsse.')
  }
  if (read('sse-kms-key-id') !== undefined && !sse?.startsWith('aws:kms')) {
    throw bad('sse-kms-key-id needs sse=aws:kms')
  }
  return {
    url: text,
    name: `s3://${bucket}/${prefix}`,
    bucket,
    prefix,
    endpoint,
    region: read('region'),
    pathStyle: readSwitch(read('path-style'), bad),
    profile: read('profile'),
    storageClass: read('storage-class'),
    sse,
    sseKmsKeyId: read('sse-kms-key-id'),
    lockMode: readLockMode(read('lock-mode') ?? 'compliance', bad),
    partBytes: readPartBytes(read('part-size'), bad),
  }
}

type Bad = (what: string, hint?: string) => Fault

function checkEndpoint(text: string, bad: Bad): void {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw bad(`bad endpoint ${JSON.stringify(text)}`, 'Give one like https://s3.example.net:9000.')
  }
  if (url.username !== '' || url.password !== '') {
    throw new Fault('usage', 'open s3 URL: credentials do not belong into its endpoint')
  }
}

function readPrefix(path: string, bad: Bad): string {
  let plain: string
  try {
    plain = decodeURIComponent(path)
  } catch (error) {
    throw new Fault('usage', bad('bad %-escape in the path').message, { cause: error })
  }
  const parts = plain.split('/').filter((part) => part !== '')
  if (parts.some((part) => part === '.' || part === '..')) throw bad('the prefix holds . or ..')
  return parts.map((part) => `${part}/`).join('')
}

function readSwitch(text: string | undefined, bad: Bad): boolean | undefined {
  if (text === undefined) return undefined
  if (['1', 'true', 'yes'].includes(text)) return true
  if (['0', 'false', 'no'].includes(text)) return false
  throw bad(`bad path-style=${text}`, 'Give 1 or 0.')
}

function readLockMode(text: string, bad: Bad): 'COMPLIANCE' | 'GOVERNANCE' {
  const mode = text.toUpperCase()
  if (mode === 'COMPLIANCE' || mode === 'GOVERNANCE') return mode
  throw bad(`bad lock-mode=${text}`, 'Give compliance or governance.')
}

function readPartBytes(text: string | undefined, bad: Bad): number {
  if (text === undefined) return partBytesDefault
  const size = parseSizeBytes(text)
  if (size !== undefined && size >= partBytesMin && size <= partBytesMax) return size
  throw bad(`bad part-size=${text}`, 'Give 5MiB to 64MiB.')
}
