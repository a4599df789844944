import {
  type DigestColumn,
  type DigestTable,
  type Key,
  keyColumns,
  type KeyRange,
} from '#change/digest'
import { quoteName } from '../rows-sql.ts'
import { literalSql } from './forms.ts'

/** A range as a condition; undefined for all rows. */
export function rangeSql(table: DigestTable, range: KeyRange): string | undefined {
  const names = `(${keyColumns(table)
    .map((column) => quoteName(column.name))
    .join(', ')})`
  const parts = [
    ...(range.from === undefined ? [] : [`${names} >= ${literals(table, range.from)}`]),
    ...(range.to === undefined ? [] : [`${names} < ${literals(table, range.to)}`]),
  ]
  return parts.length === 0 ? undefined : parts.join(' and ')
}

/** Whether the borders of a range are in order here: an expression of literals only. */
export function orderedSql(table: DigestTable, { from, to }: KeyRange): string {
  if (from === undefined || to === undefined) return 'true'
  return `${typed(table, from)} < ${typed(table, to)}`
}

/** The rows of these keys. */
export function keysSql(table: DigestTable, keys: readonly Key[]): string {
  const names = keyColumns(table).map((column) => quoteName(column.name))
  const lists = keys.map((key) => literals(table, key)).join(', ')
  return `(${names.join(', ')}) in (${lists})`
}

function literals(table: DigestTable, key: Key): string {
  return `(${keyColumns(table)
    .map((column, at) => literalSql(column, key[at] ?? null))
    .join(', ')})`
}

/** Alone, a literal has neither its column's type nor its collation. */
function typed(table: DigestTable, key: Key): string {
  const one = (column: DigestColumn, at: number) => {
    const value = `${literalSql(column, key[at] ?? null)}::${column.type}`
    return column.collation ? `${value} collate ${column.collation}` : value
  }
  return `(${keyColumns(table).map(one).join(', ')})`
}
