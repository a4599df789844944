import { Fault } from '#base/faults'

/** Which tables a restore is about. */
export type Selection = {
  readonly everything: boolean
  accepts(database: string, table: string): boolean
  /** Whether any table of the database may be meant. */
  touches(database: string): boolean
}

/** Patterns are `database.table` with `*` and `?`; a database alone means all its tables. */
export function selectTables(patterns: readonly string[]): Selection {
  const parts = patterns.map((pattern) => {
    const [database = '', table = '*', ...more] = splitPattern(pattern)
    if (more.length > 0 || database === '') {
      throw new Fault('usage', `read pattern ${pattern}: it is not database.table`)
    }
    return { database: toMatcher(database), table: toMatcher(table) }
  })
  const everything = parts.length === 0
  return {
    everything,
    accepts: (database, table) =>
      everything || parts.some((part) => part.database.test(database) && part.table.test(table)),
    touches: (database) => everything || parts.some((part) => part.database.test(database)),
  }
}

/** A dot in a name is written in backticks: `` `a.b`.c ``. */
function splitPattern(pattern: string): string[] {
  const parts = pattern.match(/`(?:[^`]|``)*`|[^.`]+/g) ?? []
  return parts.map((part) =>
    part.startsWith('`') ? part.slice(1, -1).replaceAll('``', '`') : part,
  )
}

function toMatcher(glob: string): RegExp {
  const source = glob
    .split('')
    .map((char) => (char === '*' ? '.*' : char === '?' ? '.' : RegExp.escape(char)))
    .join('')
  return new RegExp(`^${source}$`, 's')
}
