import { Fault, fromSystem, isAbort, type Code } from '#base/faults'
import { Reader } from '#base/bytes'

/** The fields of an ErrorResponse that we look at. */
export type ServerError = {
  readonly sqlState: string
  readonly message: string
  readonly detail?: string | undefined
  readonly hint?: string | undefined
}

/** Reads the body of an ErrorResponse or NoticeResponse: fields of a type byte and text, then a zero. */
export function decodeServerError(body: Buffer): ServerError {
  const reader = new Reader(body, 'an error response')
  const fields = new Map<string, string>()
  while (reader.left > 0) {
    const type = reader.u8()
    if (type === 0) break
    fields.set(String.fromCharCode(type), reader.cstring())
  }
  return {
    sqlState: fields.get('C') ?? 'XX000',
    message: fields.get('M') ?? 'unknown error',
    detail: fields.get('D'),
    hint: fields.get('H'),
  }
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html; the first prefix that fits decides.
const byState: readonly (readonly [prefix: string, code: Code])[] = [
  ['28', 'denied'],
  ['42501', 'denied'],
  ['08P01', 'protocol'],
  ['08', 'unreachable'],
  ['57P01', 'unreachable'],
  ['57P02', 'unreachable'],
  ['57P03', 'unreachable'],
  ['57P05', 'unreachable'],
  ['53300', 'unreachable'],
  ['53100', 'full'],
  ['55006', 'locked'],
  // Deadlocks, serialization failures, locks that were waited for too long: another time it goes.
  ['40P01', 'locked'],
  ['40001', 'locked'],
  ['55P03', 'locked'],
  ['25P03', 'unreachable'],
  ['3D000', 'missing'],
  ['42P06', 'exists'],
  ['42P07', 'exists'],
  ['42710', 'exists'],
  ['42723', 'exists'],
  ['58P01', 'log-lost'],
  ['0A000', 'unsupported'],
]

/** An error that the server sent, as a Fault. */
export function fromServer(error: ServerError, doing: string, cause?: unknown): Fault {
  const code = byState.find(([prefix]) => error.sqlState.startsWith(prefix))?.[1] ?? 'engine'
  const detail = error.detail === undefined ? '' : ` (${error.detail})`
  const fault = `${doing}: ${error.message}${detail}`
  const { hint } = error
  return new Fault(code, fault, { ...(hint ? { hint } : {}), cause })
}

/** Classifies what `pg`, a socket or the server threw. Faults and aborts pass. */
export function fromPostgres(error: unknown, doing: string): unknown {
  if (error instanceof Fault || isAbort(error)) return error
  const foreign = error as { code?: unknown; message?: unknown; detail?: unknown; hint?: unknown }
  // EPIPE has five letters too, but a system call made it.
  const bySystem = typeof foreign === 'object' && foreign !== null && 'syscall' in foreign
  if (!bySystem && typeof foreign?.code === 'string' && /^[0-9A-Z]{5}$/.test(foreign.code)) {
    const { code: sqlState } = foreign
    return fromServer(
      {
        sqlState,
        message: String(foreign.message),
        detail: typeof foreign.detail === 'string' ? foreign.detail : undefined,
        hint: typeof foreign.hint === 'string' ? foreign.hint : undefined,
      },
      doing,
      error,
    )
  }
  // A socket file that is not there is a server that is not there.
  if (foreign?.code === 'ENOENT') {
    return new Fault('unreachable', `${doing}: no such socket`, { cause: error })
  }
  if (typeof foreign?.code === 'string' && /CERT|SELF_SIGNED|UNABLE_TO_/.test(foreign.code)) {
    return new Fault('denied', `${doing}: the server's certificate is refused, ${foreign.code}`, {
      cause: error,
      hint: 'Name the authority that signed it with sslrootcert=FILE in the URL.',
    })
  }
  const system = fromSystem(error, doing)
  if (system !== error) return system
  // What is left of `pg` has no code: a password that is missing or of no use, or a connection that ended.
  if (String(foreign?.message).startsWith('SASL')) {
    return new Fault('denied', `${doing}: the server wants a password`, { cause: error })
  }
  return new Fault('unreachable', `${doing}: ${String(foreign?.message ?? error)}`, {
    cause: error,
  })
}
