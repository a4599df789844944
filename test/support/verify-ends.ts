import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { type Verified, verifyData, type VerifySettings } from '#service/verify'

/** Compares two servers as the verb does; a difference counts after half a second. */
export async function verifyEnds(
  from: string,
  to: string,
  settings: Partial<VerifySettings> = {},
): Promise<Verified> {
  return verifyData(
    {
      from,
      to,
      include: [],
      exclude: [],
      map: '',
      parallel: 2,
      recheckMs: 500,
      namedMax: 100,
      progress: createProgress('verify'),
      ...settings,
    },
    { env: {}, log: silentLog, signal: AbortSignal.timeout(240_000) },
  )
}

/** Each row that is named: `different d.t id=1: a, b`. */
export function namedRows({ tables }: Verified): readonly string[] {
  return tables
    .flatMap((table) =>
      table.rows.map(({ kind, rows, key, columns }) => {
        const where = Object.entries(key).map(([name, value]) => `${name}=${value ?? 'NULL'}`)
        const many = rows > 1 ? ` x${rows}` : ''
        const what = columns.length > 0 ? `: ${columns.join(', ')}` : ''
        return `${kind} ${table.name.join('.')} ${where.join(' ')}${many}${what}`
      }),
    )
    .sort()
}

/** What is to be empty when both sides are equal. */
export function unequal(verified: Verified): readonly unknown[] {
  const { structure, findings, tables } = verified
  const bad = tables.filter(
    (one) =>
      one.missing + one.extra + one.different > one.repaired ||
      one.more ||
      one.changing > 0 ||
      one.uncompared.length > 0 ||
      one.unrepaired.length > 0,
  )
  return [...structure, ...findings, ...bad]
}
