import type { Flavor } from './flavor.ts'
import { splitTop } from './ddl.ts'
import type { Session } from './protocol/session.ts'
import type { NameMap } from './schema-names.ts'
import type { Gathered } from './schema-read.ts'
import { readWords, replaceAt } from './sql-words.ts'
import { quoteName } from './sql.ts'
import { readUsers } from './users.ts'

/** Accounts before anything else, for they are definers; grants last, for they name what was made. */
export async function readAccounts(
  session: Session,
  flavor: Flavor,
  parts: { readonly names: NameMap; readonly into: Gathered; readonly signal: AbortSignal },
): Promise<void> {
  const { names, into, signal } = parts
  const text = await readUsers(session, flavor, signal)
  if (!text) {
    into.findings.push({
      severity: 'blocks',
      code: 'accounts-hidden',
      said: 'this user may not read the accounts of the source',
      mend: 'GRANT SELECT ON mysql.* TO CURRENT_USER',
    })
    return
  }
  const statements = splitTop(text.toString(), ';').map((one) => one.trim())
  for (const statement of statements.filter((one) => one !== '' && !one.startsWith('--'))) {
    const isGrant = /^(?:GRANT|REVOKE|SET DEFAULT ROLE)\b/i.test(statement)
    const sql = isGrant ? mapGrant(statement, names) : statement
    const shown = describe(statement)
    into.objects.push({
      id: isGrant ? `grant ${shown}` : `account ${shown}`,
      kind: isGrant ? 'grant' : 'role',
      name: [shown],
      stage: isGrant ? 'end' : 'rows',
      statements: [sql],
      needs: [],
    })
  }
}

/** Without what follows the name: passwords. */
function describe(statement: string): string {
  return statement
    .replace(/\s+IDENTIFIED\b.*$/is, '')
    .replace(/^CREATE (?:USER|ROLE) (?:IF NOT EXISTS )?/i, '')
}

/** The database of `ON db.*`, whose wildcards may stand behind backslashes. */
function mapGrant(statement: string, names: NameMap): string {
  const { sql } = names.pairs(statement)
  const words = [...readWords(sql)]
  const places = words.flatMap((word, at) => {
    const on = words[at - 1]
    if (word.kind !== 'name' || on?.text.toUpperCase() !== 'ON' || words[at + 2]?.text !== '*')
      return []
    const plain = word.text.replaceAll(/\\([_%])/g, '$1')
    const mapped = names.database(plain)
    return mapped === plain ? [] : [{ start: word.start, end: word.end, by: quoteName(mapped) }]
  })
  return replaceAt(sql, places)
}
