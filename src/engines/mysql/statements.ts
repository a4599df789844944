import type { Selection } from './targets.ts'

/** Words that begin statements which change no table of a user. */
const harmless =
  /^(?:begin|commit|rollback|savepoint|release|xa|flush|set|grant|revoke|create\s+user|alter\s+user|drop\s+user|rename\s+user|create\s+role|drop\s+role|analyze|optimize|checksum|install|uninstall)\b/i

const tableStatement =
  /^(?:create(?:\s+or\s+replace)?\s+table(?:\s+if\s+not\s+exists)?|alter(?:\s+online)?(?:\s+ignore)?\s+table(?:\s+if\s+exists)?|truncate(?:\s+table)?|create(?:\s+or\s+replace)?(?:\s+online)?(?:\s+unique|\s+fulltext|\s+spatial)?\s+index\s+(?:if\s+not\s+exists\s+)?\S+\s+on|drop\s+index\s+(?:if\s+exists\s+)?\S+\s+on)\s+/i

const twoTables = /\b(?:rename|exchange|like|select|references|union|discard|import)\b/i

/** What a statement means for the wanted tables. */
export type Meaning = 'none' | 'apply' | 'unknown'

/** Judges a statement of the log: only what surely touches nothing else but wanted tables is run by itself. */
export function judge(sql: Buffer, database: string, selection: Selection): Meaning {
  if (selection.everything) return 'apply'
  const text = stripComments(sql.toString('utf8'))
  if (/^(?:begin|commit|rollback|savepoint|release|xa)\b/i.test(text)) return 'apply'
  if (harmless.test(text)) return 'none'
  const match = tableStatement.exec(text)
  const named = match && readName(text.slice(match[0].length), database)
  if (named && !twoTables.test(text)) {
    return selection.accepts(named.database, named.table) ? 'apply' : 'none'
  }
  return mentions(text, database, selection) ? 'unknown' : 'none'
}

/** Whether any name in the text could be one of a wanted table. */
function mentions(text: string, database: string, selection: Selection): boolean {
  const names = text.match(/`(?:[^`]|``)+`|[\p{L}\p{N}_$]+/gu) ?? []
  const plain = names.map((name) =>
    name.startsWith('`') ? name.slice(1, -1).replaceAll('``', '`') : name,
  )
  if (/^(?:drop|alter)\s+(?:database|schema)\b/i.test(text)) {
    return plain.some((name) => selection.touches(name))
  }
  return plain.some(
    (name, index) =>
      selection.accepts(database, name) ||
      (index > 0 && selection.accepts(plain[index - 1] ?? '', name)),
  )
}

function readName(
  text: string,
  database: string,
): { readonly database: string; readonly table: string } | undefined {
  const part = '(`(?:[^`]|``)+`|[\\p{L}\\p{N}_$]+)'
  const match = new RegExp(`^${part}(?:\\s*\\.\\s*${part})?`, 'u').exec(text)
  if (!match) return undefined
  const bare = (name: string) =>
    name.startsWith('`') ? name.slice(1, -1).replaceAll('``', '`') : name
  const [, first = '', second] = match
  return second === undefined
    ? { database, table: bare(first) }
    : { database: bare(first), table: bare(second) }
}

/** Without comments at the start; those for versions keep their content. */
function stripComments(text: string): string {
  let rest = text.trimStart()
  for (;;) {
    const comment = /^(?:\/\*(?!!|M!).*?\*\/|--\s[^\n]*\n|#[^\n]*\n)\s*/s.exec(rest)
    if (!comment) break
    rest = rest.slice(comment[0].length)
  }
  return rest.replaceAll(/\/\*M?!\d*|\*\//g, ' ').trimStart()
}

/** Watches the statements of a log for one whose effect on the wanted tables cannot be told. */
export class StatementFilter {
  readonly #selection: Selection
  /** The first such statement, shortened. */
  doubt: string | undefined

  constructor(selection: Selection) {
    this.#selection = selection
  }

  see(sql: Buffer, database: string): void {
    if (this.doubt !== undefined || this.#selection.everything) return
    if (judge(sql, database, this.#selection) !== 'unknown') return
    this.doubt = `the log holds: ${sql.subarray(0, 120).toString('utf8').replaceAll(/\s+/g, ' ')}`
  }
}
