/** A name in backticks. */
export function quoteName(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``
}

/** A database and a thing in it. */
export function quoteNames(database: string, name: string): string {
  return `${quoteName(database)}.${quoteName(name)}`
}

/**
 * A string literal that means the same under every `sql_mode`: hex, so that neither quotes nor backslashes matter.
 * The character set introducer keeps it text.
 */
export function quoteText(text: string): string {
  return text === '' ? "''" : `_utf8mb4 0x${Buffer.from(text).toString('hex')}`
}

/** A literal in single quotes with doubled quotes, for text without backslashes: settings, names of files. */
export function quotePlain(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
}
