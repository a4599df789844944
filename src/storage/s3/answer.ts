import type { ListObjectsV2CommandOutput } from '@aws-sdk/client-s3'
import { type Code, Fault, type FaultDetails, fromSystem } from '#base/faults'

type Verdict = readonly [Code, FaultDetails?]

const wrongRegion: Verdict = [
  'usage',
  {
    hint: 'The bucket is of another region: say which by region=, and endpoint= if it has its own.',
  },
]

/**
 * Error codes of S3's answers; https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
 */
const byName: Readonly<Record<string, Verdict>> = {
  NoSuchKey: ['missing'],
  NoSuchBucket: ['missing', { hint: 'Make the bucket first, or correct its name.' }],
  PreconditionFailed: ['exists'],
  // Somebody writes the same key at this moment: who wins is not known yet.
  ConditionalRequestConflict: ['conflict', { recovery: 'retry' }],
  OperationAborted: ['conflict', { recovery: 'retry' }],
  ConcurrentModification: ['conflict', { recovery: 'retry' }],
  SlowDown: ['throttled'],
  ServiceUnavailable: ['throttled'],
  Throttling: ['throttled'],
  ThrottlingException: ['throttled'],
  TooManyRequests: ['throttled'],
  RequestLimitExceeded: ['throttled'],
  BandwidthLimitExceeded: ['throttled'],
  QuotaExceeded: ['full'],
  StorageFull: ['full'],
  XMinioStorageFull: ['full'],
  // The body did not arrive as it was sent.
  BadDigest: ['unreachable'],
  IncompleteBody: ['unreachable'],
  XAmzContentSHA256Mismatch: ['unreachable'],
  RequestTimeout: ['timeout'],
  TimeoutError: ['timeout'],
  InternalError: ['unreachable'],
  // The client has set its clock by the answer's date, and signs rightly the next time.
  RequestTimeTooSkewed: ['denied', { recovery: 'retry', hint: 'Set the clock of this machine.' }],
  ExpiredToken: ['denied', { hint: 'Renew the session token.' }],
  InvalidAccessKeyId: ['denied', { hint: 'The store does not know this AWS_ACCESS_KEY_ID.' }],
  SignatureDoesNotMatch: ['denied', { hint: 'See whether AWS_SECRET_ACCESS_KEY is right.' }],
  CredentialsProviderError: [
    'denied',
    { hint: 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.' },
  ],
  InvalidObjectState: [
    'unsupported',
    { hint: 'The object lies in an archive class: bring it back from there first.' },
  ],
  NotImplemented: ['unsupported'],
  MethodNotAllowed: ['unsupported'],
  PermanentRedirect: wrongRegion,
  TemporaryRedirect: wrongRegion,
  AuthorizationHeaderMalformed: wrongRegion,
  IllegalLocationConstraintException: wrongRegion,
  EntityTooLarge: ['unsupported'],
  KMSDisabledException: ['denied'],
  'KMS.DisabledException': ['denied'],
  'KMS.NotFoundException': ['denied'],
}

const byStatus: Readonly<Record<number, Verdict>> = {
  301: wrongRegion,
  307: wrongRegion,
  401: ['denied'],
  403: ['denied'],
  404: ['missing'],
  405: ['unsupported'],
  408: ['timeout'],
  409: ['conflict', { recovery: 'retry' }],
  412: ['exists'],
  429: ['throttled'],
  500: ['unreachable'],
  501: ['unsupported'],
  502: ['unreachable'],
  503: ['throttled'],
  504: ['unreachable'],
  507: ['full'],
}

/** Names of the client's own errors, said for people. */
const plainWords: Readonly<Record<string, string>> = {
  CredentialsProviderError: 'no credentials found',
  TimeoutError: 'no answer in time',
}

const lostCodes = ['ECONNRESET', 'EPIPE', 'EPROTO', 'ECONNABORTED']

const certificate: FaultDetails = {
  recovery: 'stop',
  hint: 'Name the authority of its certificate by NODE_EXTRA_CA_CERTS.',
}

/** How much of a store's own words is passed on. */
const hintMax = 300

type Answer = Error & {
  readonly code?: unknown
  readonly $metadata?: { readonly httpStatusCode?: number | undefined }
  readonly $response?: { readonly statusCode?: number | undefined }
}

/** Classifies what the S3 client throws, once; `doing` names the operation and the object. */
export function fromS3(error: unknown, doing: string, signal: AbortSignal | undefined): unknown {
  if (error instanceof Fault) return error
  if (signal?.aborted) return signal.reason
  if (!(error instanceof Error)) return error
  const answer: Answer = error
  const status = answer.$metadata?.httpStatusCode ?? answer.$response?.statusCode ?? 0
  const code = typeof answer.code === 'string' ? answer.code : ''
  // The client gives lost connections the name of a timeout; their system code tells them apart.
  if (status === 0 && lostCodes.includes(code)) {
    return new Fault('unreachable', `${doing}: ${code}`, { cause: error })
  }
  const [fault, details] = judge(error.name, status, code)
  if (!fault) {
    const system = fromSystem(error, doing)
    if (system instanceof Fault) return system
    // An answer that cannot be parsed was cut or damaged on its way.
    const unread = status >= 200 && status < 300
    const kind = unread ? 'unreachable' : status >= 400 ? 'usage' : undefined
    if (!kind) return error
    const hint = unread ? undefined : `The store says: ${error.message.slice(0, hintMax)}`
    return new Fault(kind, `${doing}: ${status} ${error.name}`, { cause: error, hint })
  }
  const said =
    status === 0 ? code || (plainWords[error.name] ?? error.name) : `${status} ${error.name}`
  return new Fault(fault, `${doing}: ${said}`, { ...details, cause: error })
}

/**
 * The tag that every answer about an object bears; throws for an answer of something that is no
 * store.
 */
export function checkTag(answer: { readonly ETag?: string | undefined }, doing: string): string {
  if (answer.ETag) return answer.ETag
  throw new Fault('unreachable', `${doing}: the answer is not that of a store`, {
    hint: 'See whether a proxy or a login page stands between.',
  })
}

/** Refuses an answer that is no listing: an empty or foreign body would read as an empty store. */
export function checkListing(page: ListObjectsV2CommandOutput, doing: string): void {
  const count = page.Contents?.length ?? 0
  const whole = page.IsTruncated !== undefined && (page.KeyCount ?? count) === count
  if (!whole || (page.IsTruncated && !page.NextContinuationToken)) {
    throw new Fault('unreachable', `${doing}: the answer is no whole listing`)
  }
}

/**
 * The error code of S3's answer behind a Fault, for the few places that must tell refusals apart.
 */
export function answerName(fault: Fault): string {
  return fault.cause instanceof Error ? fault.cause.name : ''
}

function judge(name: string, status: number, code: string): readonly [Code?, FaultDetails?] {
  const known = byName[name] ?? byStatus[status]
  if (known) return known
  if (/CERT|SELF_SIGNED|UNABLE_TO_VERIFY/.test(code)) return ['unreachable', certificate]
  // Parse errors of HTTP itself (HPE_...) and of TLS (EPROTO) are a connection gone wrong.
  if (/^HPE_|^ERR_SSL/.test(code)) return ['unreachable']
  return []
}
