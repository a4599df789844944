import type { Collation } from './binlog/settings.ts'
import { parseFlavor } from './flavor.ts'
import type { ReplayOptions } from './replay.ts'
import { Session } from './protocol/session.ts'

/** A session in which statements of the log run with settings of their own. */
export async function openReplaySession(
  options: Pick<ReplayOptions, 'endpoint' | 'unlogged' | 'signal'>,
): Promise<Session> {
  const { endpoint, signal } = options
  const session = await Session.open(endpoint, { signal })
  const long = 24 * 3600
  await session.query(`SET SESSION wait_timeout = ${long}, net_read_timeout = ${long}`, { signal })
  // Statements come in the character set of whoever ran them; each brings its own settings.
  await session.query(`SET SESSION character_set_results = NULL, sql_mode = ''`, { signal })
  if (options.unlogged) await session.query('SET SESSION sql_log_bin = 0', { signal })
  return session
}

/** The collations of the server by their numbers, as events name them. */
export async function readCollations(
  session: Session,
  signal: AbortSignal,
): Promise<Map<number, Collation>> {
  const version = await session.one('SELECT @@global.version', { signal })
  const flavor = parseFlavor(version?.[0] ?? '')
  // From 10.10 on MariaDB's collations are of several character sets, and numbered here.
  const several = flavor.family === 'mariadb' && flavor.number >= 101_001
  const sql = several
    ? 'SELECT ID, FULL_COLLATION_NAME, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY'
    : 'SELECT ID, COLLATION_NAME, CHARACTER_SET_NAME FROM information_schema.COLLATIONS'
  const rows = await session.texts(sql, { signal })
  return new Map(
    rows.map(([id, name, set]) => [Number(id), { name: name ?? '', charset: set ?? '' }]),
  )
}
