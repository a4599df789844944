import { Fault } from '#base/faults'
import type { Flavor } from '../flavor.ts'
import { decodeError, decodeOk, type Result } from '../protocol/packets.ts'
import type { Endpoint } from '../protocol/endpoint.ts'
import { fromServer, type ServerError } from '../protocol/server-error.ts'
import { commandQuery, Session } from '../protocol/session.ts'
import { readVariables } from '../server.ts'

type Options = { readonly signal: AbortSignal }

/** Rows locked by users of the target are waited for so long; then the whole transaction is tried again. */
const lockWaitSeconds = 20
/** A lane may have nothing to do for long. */
const idleSeconds = 7 * 24 * 3600

/**
 * What a value of the source is, it is here: zero dates and odd ones, numbers of counters, backslashes. What does not fit is
 * refused, never cut.
 */
const strictModes =
  'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION'
export const strictSql = `SET SESSION sql_mode = '${strictModes}'`
/** For an ENUM's empty error value, which strict sessions refuse. */
export const looseSql = `SET SESSION sql_mode = '${strictModes.replace('STRICT_ALL_TABLES,', '')}'`

/** A session in which rows are written as the log has them; nothing is committed by itself. */
export async function openApplySession(
  endpoint: Endpoint,
  flavor: Flavor,
  options: Options,
): Promise<Session> {
  const session = await Session.open(endpoint, options)
  try {
    // Literals bring their own character sets; names are UTF-8.
    await session.query('SET NAMES binary', options)
    await session.query(strictSql, options)
    await session.query(
      `SET SESSION autocommit = 0, time_zone = '+00:00', foreign_key_checks = 0, unique_checks = 1,
       sql_safe_updates = 0, innodb_lock_wait_timeout = ${lockWaitSeconds}, wait_timeout = ${idleSeconds}`,
      options,
    )
    const variables = await readVariables(
      session,
      [
        'log_bin',
        'binlog_format',
        'innodb_snapshot_isolation',
        'in_predicate_conversion_threshold',
      ],
      options.signal,
    )
    // Rows that are not changed stay unlocked; a log of statements does not allow it.
    if (variables.get('log_bin') !== 'ON' || variables.get('binlog_format') !== 'STATEMENT') {
      await session.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED', options)
    }
    if (flavor.family === 'mariadb') {
      // A long list of keys is to be looked up, not joined.
      if (variables.has('in_predicate_conversion_threshold')) {
        await session.query('SET SESSION in_predicate_conversion_threshold = 0', options)
      }
    }
    return session
  } catch (error) {
    session.destroy()
    throw error
  }
}

/**
 * Sends statements without waiting in between and gathers what became of each: the server goes on behind one that fails, so
 * that whatever they do must be in one transaction.
 */
export async function exchange(
  session: Session,
  statements: readonly Buffer[],
  options: Options,
): Promise<(Result | ServerError)[]> {
  using _ = session.guard(options.signal)
  for (const statement of statements) session.send(commandQuery, statement)
  const answers: (Result | ServerError)[] = []
  for (let left = statements.length; left > 0; left--) {
    const packet = await session.packet()
    if (packet[0] === 0xff) answers.push(decodeError(packet))
    else if (packet[0] === 0) answers.push(decodeOk(packet))
    else throw new Fault('protocol', 'apply changes: a statement had rows for an answer')
  }
  return answers
}

const readOnlyNumbers = new Set([1290, 1792, 1836, 3100])
/** MariaDB's word for a row that changed since the snapshot was taken. */
const changedSinceNumber = 1020

/** What a server refused while changes were written, told by what can be done about it. */
export function applyFault(error: ServerError, doing: string): Fault {
  const said = `${doing}: ${error.message} (${error.number})`
  if (readOnlyNumbers.has(error.number)) {
    return new Fault('refused', said, {
      hint: 'Let this user write to the target: it is read-only.',
      recovery: 'retry',
      cause: error,
    })
  }
  if (error.number === changedSinceNumber) return new Fault('timeout', said, { cause: error })
  return fromServer(error, doing)
}
