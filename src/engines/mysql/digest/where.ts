import {
  type DigestColumn,
  type DigestTable,
  type Key,
  keyColumns,
  type KeyRange,
} from '#change/digest'
import { quoteName } from '../sql.ts'
import { keyLiteralSql } from './forms.ts'

type Operator = '<' | '>='

/**
 * A comparison of a composite key, spelled out: the optimiser makes a range of this, and none of a comparison of rows.
 * (a, b) >= (x, y) is a >= x AND (a > x OR (a = x AND b >= y)).
 */
function compare(parts: readonly (readonly [string, string])[], operator: Operator): string {
  const [[left, right] = ['', ''], ...rest] = parts
  if (rest.length === 0) return `${left} ${operator} ${right}`
  const strict = operator === '<' ? '<' : '>'
  const loose = operator === '<' ? '<=' : '>='
  return `(${left} ${loose} ${right} AND (${left} ${strict} ${right} OR (${left} = ${right} AND ${compare(rest, operator)})))`
}

/** A range as a condition; undefined for all rows. */
export function rangeSql(table: DigestTable, range: KeyRange): string | undefined {
  const columns = keyColumns(table)
  const side = (key: Key | undefined, operator: Operator) =>
    key === undefined
      ? []
      : [
          compare(
            columns.map((column, at) => [quoteName(column.name), literal(column, key[at])]),
            operator,
          ),
        ]
  const parts = [...side(range.from, '>='), ...side(range.to, '<')]
  return parts.length === 0 ? undefined : parts.join(' AND ')
}

/** Whether the borders of a range are in order here: an expression of literals only. */
export function orderedSql(table: DigestTable, { from, to }: KeyRange): string {
  if (from === undefined || to === undefined) return '1'
  const pairs = keyColumns(table).map(
    (column, at) => [literal(column, from[at]), literal(column, to[at])] as const,
  )
  return compare(pairs, '<')
}

/** The rows of these keys. */
export function keysSql(table: DigestTable, keys: readonly Key[]): string {
  const columns = keyColumns(table)
  const [only, ...more] = columns
  if (only && more.length === 0) {
    return `${quoteName(only.name)} IN (${keys.map((key) => literal(only, key[0])).join(', ')})`
  }
  const one = (key: Key) =>
    columns.map((column, at) => `${quoteName(column.name)} = ${literal(column, key[at])}`)
  return keys.map((key) => `(${one(key).join(' AND ')})`).join(' OR ')
}

function literal(column: DigestColumn, cell: Buffer | undefined): string {
  return keyLiteralSql(column, cell ?? Buffer.alloc(0))
}
