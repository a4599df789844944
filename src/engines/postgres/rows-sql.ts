import type { ObjectName, TableShape } from '#change/schema'

/** Where large objects are: they are carried as a table of this name. */
export const largeObjects: ObjectName = ['pg_catalog', 'pg_largeobject']

export function isLargeObjects(name: ObjectName): boolean {
  return name[0] === largeObjects[0] && name[1] === largeObjects[1]
}

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

export function quotePath(name: ObjectName): string {
  return name.map(quoteName).join('.')
}

// Not every setting of a session may hold a backslash as it is.
export function quoteText(text: string): string {
  const quoted = `'${text.replaceAll("'", "''").replaceAll('\\', '\\\\')}'`
  return text.includes('\\') ? `E${quoted}` : quoted
}

/** The columns that are read and written: not those that the server computes. */
export function writtenColumns(table: TableShape): readonly string[] {
  return table.columns.filter((column) => !column.generated).map((column) => column.name)
}

/** The source's encoding of text, as the columns have it. */
export function encodingOf(table: TableShape): string {
  return table.columns.find((column) => column.charset !== undefined)?.charset ?? 'UTF8'
}

/** What a session of ours that carries rows must not be stopped by; set where the server knows it. */
const patience: readonly (readonly [string, string])[] = [
  ['statement_timeout', '0'],
  ['lock_timeout', '0'],
  ['idle_in_transaction_session_timeout', '0'],
  ['idle_session_timeout', '0'],
  ['transaction_timeout', '0'],
  ['search_path', ''],
  ['row_security', 'off'],
]

/** A statement that sets what the server knows of these, and of `patience`; its own list has some names with capitals. */
export function settingsSql(more: readonly (readonly [string, string])[] = []): string {
  const all = [...patience, ...more].map(
    ([name, value]) => `(${quoteText(name)}, ${quoteText(value)})`,
  )
  return `select pg_catalog.set_config(name, value, false) from (values ${all.join(', ')}) v(name, value)
    where name in (select pg_catalog.lower(s.name) from pg_catalog.pg_settings s)`
}
