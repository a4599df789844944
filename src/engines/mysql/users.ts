import { isFault } from '#base/faults'
import type { Flavor } from './flavor.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { serverErrorNumber } from './protocol/server-error.ts'
import { Session } from './protocol/session.ts'
import { splitTop } from './ddl.ts'
import type { BaseReader } from '#engines'
import { quotePlain } from './sql.ts'

/**
 * ER_PASSWORD_NO_MATCH: under skip_name_resolve the server leaves accounts whose host is a name out of its tables in
 * memory, though they stand in mysql.user.
 */
const unknownUser = 1133

/** Accounts that every server makes for itself. */
const ownAccounts = new Set([
  'mysql.sys',
  'mysql.session',
  'mysql.infoschema',
  'mariadb.sys',
  'PUBLIC',
])

/**
 * Accounts with their passwords' hashes, and their grants, as statements; undefined where the backup user may not read
 * them. Each stands alone, so that one that the target refuses stops no other.
 */
export async function readUsers(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  const statements: string[] = []
  try {
    await session.query('SET NAMES utf8mb4', { signal })
    await session.query(`SET SESSION sql_mode = ''`, { signal })
    if (flavor.family === 'mysql' && flavor.number >= 80_017) {
      await session.query('SET SESSION print_identified_with_as_hex = ON', { signal })
    }
    const roles = flavor.family === 'mariadb' ? `, is_role` : `, 'N'`
    const rows = await session.texts(
      `SELECT User, Host${roles} FROM mysql.user ORDER BY 3 DESC, 1, 2`,
      { signal },
    )
    const accounts = rows.filter(([user]) => !ownAccounts.has(user ?? ''))
    const known: Account[] = []
    for (const [user = '', host = '', isRole] of accounts) {
      const own = { user: user ?? '', host: host ?? '', isRole: isRole === 'Y' }
      const statement = await create(session, flavor, own, signal)
      if (statement === undefined) continue
      statements.push(statement)
      known.push(own)
    }
    for (const { user, host, isRole } of known) {
      const name = isRole ? quotePlain(user) : account(user, host)
      const grants = await session.texts(`SHOW GRANTS FOR ${name}`, { signal })
      statements.push(...grants.map(([grant]) => grant ?? ''))
    }
  } catch (error) {
    if (!isFault(error, 'denied')) throw error
    return undefined
  }
  return Buffer.from(statements.map((statement) => `${statement};\n`).join(''))
}

function account(user: string, host: string): string {
  return `${quotePlain(user)}@${quotePlain(host)}`
}

type Account = { readonly user: string; readonly host: string; readonly isRole: boolean }

/** The account's statement; undefined for one that the server itself does not take notice of. */
async function create(
  session: Session,
  flavor: Flavor,
  own: Account,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (own.isRole) return `CREATE ROLE IF NOT EXISTS ${quotePlain(own.user)}`
  const name = account(own.user, own.host)
  // Before MySQL 5.7 and MariaDB 10.2 the grants themselves carry the passwords.
  if (flavor.family === 'mysql' && flavor.number < 50_706) return `-- ${name.replaceAll('\n', ' ')}`
  const row = await session.one(`SHOW CREATE USER ${name}`, { signal }).catch((error: unknown) => {
    if (serverErrorNumber(error) === unknownUser) return undefined
    throw error
  })
  if (row === undefined) return undefined
  return (row?.[0] ?? '').replace(/^CREATE USER /, 'CREATE USER IF NOT EXISTS ')
}

/** Runs the stored statements one by one; returns what the server said of those that it refused. */
export async function loadUsers(
  endpoint: Endpoint,
  files: BaseReader,
  path: string,
  signal: AbortSignal,
): Promise<string[]> {
  const parts: Buffer[] = []
  for await (const file of files.list({ signal })) {
    if (file.path === path)
      for await (const bytes of files.read(path, { signal })) parts.push(bytes)
  }
  if (parts.length === 0) return []
  await using session = await Session.open(endpoint, { signal })
  await session.query('SET NAMES utf8mb4', { signal })
  const refused: string[] = []
  const statements = splitTop(Buffer.concat(parts).toString(), ';').map((one) => one.trim())
  for (const statement of statements.filter((one) => one !== '' && !one.startsWith('--'))) {
    try {
      await session.query(replaceAccount(statement), { signal })
    } catch (error) {
      if (!isFault(error, 'engine', 'denied')) throw error
      refused.push(error.message)
    }
  }
  return refused
}

/** The new server's own root is there already: it gets the old one's password. */
function replaceAccount(statement: string): string {
  const match = /^CREATE USER IF NOT EXISTS (`root`@`localhost` .*)$/s.exec(statement)
  return match ? `ALTER USER ${match[1]}` : statement
}
