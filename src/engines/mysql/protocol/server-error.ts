import { type Code, Fault, fromSystem, isAbort } from '#base/faults'

/** What the server said in an error packet. */
export class ServerError extends Error {
  override readonly name = 'ServerError'
  readonly number: number
  readonly state: string

  constructor(number: number, state: string, message: string) {
    super(message)
    this.number = number
    this.state = state
  }
}

// https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html
const deniedNumbers = new Set([
  1044, 1045, 1095, 1142, 1143, 1227, 1251, 1370, 1698, 1862, 3118, 3955,
])
const unreachableNumbers = new Set([
  1040, 1053, 1129, 1130, 1152, 1158, 1159, 1160, 1161, 1203, 1927,
])
const fullNumbers = new Set([1021, 1114, 1041])
/** Lock wait timeout, deadlock, statement timeout, killed query, and MariaDB's deadlock with a backup lock. */
const timeoutNumbers = new Set([1205, 1213, 1317, 1969, 3024])

function codeOf(number: number): Code {
  if (deniedNumbers.has(number)) return 'denied'
  if (unreachableNumbers.has(number)) return 'unreachable'
  if (fullNumbers.has(number)) return 'full'
  if (timeoutNumbers.has(number)) return 'timeout'
  return 'engine'
}

/** An error packet as a Fault; its cause tells number and SQL state. */
export function fromServer(error: ServerError, doing: string): Fault {
  return new Fault(codeOf(error.number), `${doing}: ${error.message} (${error.number})`, {
    cause: error,
  })
}

/** The number that the server gave an error, when it came from there. */
export function serverErrorNumber(error: unknown): number | undefined {
  const cause = error instanceof Error ? error.cause : undefined
  return cause instanceof ServerError ? cause.number : undefined
}

/** Classifies what the driver or the socket threw while a connection was made. */
export function fromDriver(error: unknown, doing: string): unknown {
  if (error instanceof Fault || isAbort(error)) return error
  const facts = error as Error & { code?: string; errno?: number; sqlState?: string }
  if (typeof facts.errno === 'number' && facts.errno > 1000) {
    return fromServer(new ServerError(facts.errno, facts.sqlState ?? '', facts.message), doing)
  }
  if (facts.code === 'HANDSHAKE_NO_SSL_SUPPORT') {
    return new Fault('refused', `${doing}: the server offers no TLS`, {
      hint: 'Give the server a certificate, or say ssl-mode=disabled.',
      cause: error,
    })
  }
  if (
    facts.code === 'HANDSHAKE_SSL_ERROR' ||
    /^(ERR_TLS|CERT|UNABLE|DEPTH|SELF)/.test(`${facts.code}`)
  ) {
    return new Fault('denied', `${doing}: TLS failed: ${facts.message}`, {
      hint: 'Give ssl-ca, or a weaker ssl-mode.',
      cause: error,
    })
  }
  if (facts.code === 'PROTOCOL_CONNECTION_LOST' || facts.code === 'ETIMEDOUT') {
    return new Fault('unreachable', `${doing}: ${facts.message}`, { cause: error })
  }
  return fromSystem(error, doing)
}
