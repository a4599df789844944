/** What the caller's task runner may do: try again, start over from a clean state, or stop. */
export type Recovery = 'retry' | 'reset' | 'stop'

type CodeFacts = {
  readonly recovery: Recovery
  /** Exit code of the command line; the meanings are in docs/operations/errors.md. */
  readonly exit: 1 | 2 | 3 | 4 | 5 | 130
  /** HTTP status of the API. */
  readonly http: number
  readonly meaning: string
}

/** Every error code there is. `docs/operations/errors.md` is rendered from this table. */
export const codes = {
  usage: {
    recovery: 'stop',
    exit: 2,
    http: 400,
    meaning: 'The command, option or setting makes no sense.',
  },
  unreachable: {
    recovery: 'retry',
    exit: 4,
    http: 503,
    meaning: 'An endpoint or a vault does not answer.',
  },
  throttled: {
    recovery: 'retry',
    exit: 4,
    http: 503,
    meaning: 'The object store asked to slow down.',
  },
  denied: {
    recovery: 'stop',
    exit: 4,
    http: 403,
    meaning: 'An endpoint or a vault refused the credentials.',
  },
  missing: {
    recovery: 'stop',
    exit: 1,
    http: 404,
    meaning: 'A thing that was asked for by name does not exist.',
  },
  'no-vault': {
    recovery: 'stop',
    exit: 4,
    http: 404,
    meaning: 'There is no vault at that place: not mounted, not made yet, or somewhere else.',
  },
  exists: {
    recovery: 'stop',
    exit: 1,
    http: 409,
    meaning: 'A thing that should be new is there already.',
  },
  conflict: {
    recovery: 'reset',
    exit: 1,
    http: 409,
    meaning: 'Somebody else changed the same thing first.',
  },
  locked: { recovery: 'retry', exit: 1, http: 423, meaning: 'Another process holds the lock.' },
  'wrong-key': {
    recovery: 'stop',
    exit: 4,
    http: 403,
    meaning: 'No key of the vault opens with this password.',
  },
  corrupt: {
    recovery: 'stop',
    exit: 1,
    http: 500,
    meaning: 'Stored bytes are not what was written.',
  },
  forged: {
    recovery: 'stop',
    exit: 1,
    http: 500,
    meaning: 'Stored bytes bear no valid signature of an enrolled archiver.',
  },
  gap: { recovery: 'stop', exit: 1, http: 409, meaning: 'A part of the log is missing.' },
  'log-lost': {
    recovery: 'reset',
    exit: 1,
    http: 409,
    meaning: 'The source no longer holds the log from the position needed; a new base is due.',
  },
  'source-changed': {
    recovery: 'reset',
    exit: 1,
    http: 409,
    meaning: 'The source is another server, or has another history, than before.',
  },
  refused: {
    recovery: 'stop',
    exit: 5,
    http: 412,
    meaning: 'A pre-check or a fence refused the operation.',
  },
  unsupported: {
    recovery: 'stop',
    exit: 5,
    http: 501,
    meaning: 'This version or setting of the source cannot do what was asked.',
  },
  full: {
    recovery: 'retry',
    exit: 1,
    http: 507,
    meaning: 'A disk, a bucket or a bounded buffer is full.',
  },
  protocol: {
    recovery: 'reset',
    exit: 1,
    http: 502,
    meaning: 'A peer sent bytes that its protocol does not allow.',
  },
  engine: { recovery: 'stop', exit: 1, http: 502, meaning: 'A database refused a statement.' },
  io: {
    recovery: 'stop',
    exit: 1,
    http: 500,
    meaning: 'The operating system refused a file operation.',
  },
  timeout: { recovery: 'retry', exit: 1, http: 504, meaning: 'An answer did not come in time.' },
  interrupted: {
    recovery: 'stop',
    exit: 130,
    http: 499,
    meaning: 'The operation was interrupted; its state is kept.',
  },
  different: { recovery: 'stop', exit: 3, http: 409, meaning: 'A comparison found differences.' },
} as const satisfies Record<string, CodeFacts>

export type Code = keyof typeof codes

export type FaultDetails = {
  /** One sentence for the operator: the way out. */
  readonly hint?: string | undefined
  readonly cause?: unknown
  /** Overrides what the table says of the code. */
  readonly recovery?: Recovery | undefined
}

/**
 * An operating failure. The message is lower case with no final stop, starts with a verb and names the
 * thing and the value; it never holds a secret. A foreign error becomes a Fault once, where it enters.
 */
export class Fault extends Error {
  override readonly name = 'Fault'
  readonly code: Code
  readonly hint: string | undefined
  readonly recovery: Recovery

  constructor(code: Code, message: string, details: FaultDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.hint = details.hint
    this.recovery = details.recovery ?? codes[code].recovery
  }

  get exitCode(): number {
    return codes[this.code].exit
  }
}

/** Whether an error is a Fault, of one of the codes when some are given. */
export function isFault(error: unknown, ...wanted: Code[]): error is Fault {
  return error instanceof Fault && (wanted.length === 0 || wanted.includes(error.code))
}

/** A broken invariant: a defect of ours, not an operating failure. */
export function assert(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${invariant}`)
}

type SystemError = Error & { code?: string; syscall?: string; path?: string }

const systemCodes: Readonly<Record<string, Code>> = {
  ENOENT: 'missing',
  EEXIST: 'exists',
  ENOSPC: 'full',
  EDQUOT: 'full',
  ECONNREFUSED: 'unreachable',
  ECONNRESET: 'unreachable',
  EPIPE: 'unreachable',
  ETIMEDOUT: 'unreachable',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  ENOTFOUND: 'unreachable',
  EAI_AGAIN: 'unreachable',
  ERR_SOCKET_BAD_PORT: 'usage',
}

const systemHints: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'Nothing listens there: start the server, or mend host and port.',
  ENOTFOUND: 'The name of the host does not resolve: mend it, or the name service.',
  ERR_SOCKET_BAD_PORT: 'A port is a number from 1 to 65535.',
  ENOSPC: 'Make room on that disk.',
  EDQUOT: 'Make room within the quota.',
  EACCES: 'Run as a user who may, or change the permissions.',
  EROFS: 'That file system is mounted read-only.',
}

/** Classifies an error of a node system call; a Fault and an abort pass unchanged. */
export function fromSystem(error: unknown, doing: string): unknown {
  if (error instanceof Fault || isAbort(error)) return error
  const code = (error as SystemError | undefined)?.code
  if (typeof code !== 'string' || !/^E[A-Z]/.test(code)) return error
  return new Fault(systemCodes[code] ?? 'io', `${doing}: ${code}`, {
    hint: systemHints[code],
    cause: error,
  })
}

/** Whether an error is the echo of an aborted signal. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError')
}
