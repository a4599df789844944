import { Fault } from '#base/faults'

/** What a pattern `database.schema.table` selects; parts left out stand for everything below. */
export type Selector = {
  readonly pattern: string
  readonly database: RegExp
  readonly schema: RegExp
  readonly table: RegExp
  /** Whether whole databases are meant, and not only tables. */
  readonly whole: boolean
}

/**
 * Reads `database`, `database.schema` or `database.schema.table`, each part with `*`. A part in double quotes is taken as it
 * stands, dots and stars included; a quote in it is doubled.
 */
export function parseSelector(pattern: string): Selector {
  const parts = splitParts(pattern)
  if (parts.length === 0 || parts.length > 3 || parts.some((part) => part.text === '')) {
    throw new Fault('usage', `read the pattern ${JSON.stringify(pattern)}`, {
      hint: 'Write database, database.schema or database.schema.table; * stands for any run of characters.',
    })
  }
  const any = { text: '*', quoted: false }
  const [database = any, schema = any, table = any] = parts
  return {
    pattern,
    database: toPattern(database),
    schema: toPattern(schema),
    table: toPattern(table),
    whole: isAny(schema) && isAny(table),
  }
}

type Part = { readonly text: string; readonly quoted: boolean }

function splitParts(pattern: string): Part[] {
  const parts: Part[] = []
  let rest = pattern
  for (;;) {
    const match = /^(?:"((?:[^"]|"")*)"|([^".]*))(\.|$)/s.exec(rest)
    if (!match) return []
    const [whole, quoted, plain = '', end] = match
    parts.push(
      quoted === undefined
        ? { text: plain, quoted: false }
        : { text: quoted.replaceAll('""', '"'), quoted: true },
    )
    if (end === '') return parts
    rest = rest.slice(whole.length)
  }
}

function isAny(part: Part): boolean {
  return !part.quoted && part.text === '*'
}

function toPattern(part: Part): RegExp {
  if (part.quoted) return new RegExp(`^${RegExp.escape(part.text)}$`, 's')
  const pieces = part.text.split('*').map((piece) => RegExp.escape(piece))
  return new RegExp(`^${pieces.join('.*')}$`, 's')
}
