import type { Selection } from '#change/schema'
import { judge } from '../statements.ts'

/** Changes rows by its text: the rows themselves are not in the log. */
const changesRows = /^(?:insert|update|delete|replace|load\s+data|load\s+xml|merge|call|do|with)\b/i
/** Begins, ends or divides a transaction, or leaves all tables as they are. */
const idle =
  /^(?:begin|commit|start\s+transaction|savepoint|release\s+savepoint|xa\b(?!\s+(?:commit|rollback)))/i
const temporary = /^(?:create(?:\s+or\s+replace)?|drop|alter)\s+temporary\b/i

/** What a statement of the log is to a reader of changes. */
export type StatementKind =
  | 'none'
  /** Changes objects that may be wanted. */
  | 'ddl'
  /** Changes rows that may be wanted, which are not in the log. */
  | 'rows'
  /** Takes back what came since a savepoint. */
  | 'rollback-to'

export function judgeStatement(
  sql: Buffer,
  database: string,
  selection: Pick<Selection, 'accepts'>,
): StatementKind {
  // What opens, ends and fills transactions is short, and by far the most.
  const text = stripComments(sql.subarray(0, 4096).toString('utf8'))
  if (text === '' || idle.test(text) || temporary.test(text)) return 'none'
  if (/^rollback\s+(?:work\s+)?to\b/i.test(text)) return 'rollback-to'
  if (/^(?:rollback|xa)\b/i.test(text)) return 'none'
  const meaning = judge(sql, database, {
    everything: false,
    accepts: (inside, table) => selection.accepts([inside, table]),
    touches: (inside) => selection.accepts([inside]),
  })
  if (meaning === 'none') return 'none'
  return changesRows.test(text) ? 'rows' : 'ddl'
}

/** Whether names or meaning of columns may be others behind a statement that leaves their types as they are. */
export function mayRenameColumns(sql: Buffer): boolean {
  const text = stripComments(sql.toString('utf8'))
  if (/^(?:drop|rename)\s+table\b/i.test(text)) return true
  if (!/^alter\b/i.test(text)) return false
  return /\b(?:change|modify|first|after)\b|\brename\s+(?!index\b|key\b)|\b(?:add|drop)\s+(?!index\b|key\b|constraint\b|foreign\b|unique\b|primary\b|partition\b|fulltext\b|spatial\b|check\b)/i.test(
    text,
  )
}

/** Those before the first word; those for versions keep their content. */
function stripComments(text: string): string {
  let rest = text.trimStart()
  for (;;) {
    const comment = /^(?:\/\*(?!!|M!).*?\*\/|--\s[^\n]*\n|#[^\n]*\n)\s*/s.exec(rest)
    if (!comment) break
    rest = rest.slice(comment[0].length)
  }
  return rest
    .replaceAll(/\/\*M?!\d*|\*\//g, ' ')
    .replaceAll(/\s+/g, ' ')
    .trim()
}
