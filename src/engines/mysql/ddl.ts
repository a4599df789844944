import type { Flavor } from './flavor.ts'
import { readWords } from './sql-words.ts'

/** A table's own statement taken apart, so that its rows can go in before its secondary indexes. */
export type SplitTable = {
  /** Makes the table with what its rows need. */
  readonly create: string
  /** `ADD ...` clauses that make the other indexes; those of one group go into one ALTER. */
  readonly indexes: readonly (readonly string[])[]
  readonly foreignKeys: readonly string[]
}

/** Splits at commas (or whatever `at` says) outside of quotes and parentheses. */
export function splitTop(text: string, separator = ','): string[] {
  const parts: string[] = []
  let depth = 0
  let start = 0
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === '`' || char === "'" || char === '"') at = closingQuote(text, at)
    else if (char === '(') depth += 1
    else if (char === ')') depth -= 1
    else if (char === separator && depth === 0) {
      parts.push(text.slice(start, at))
      start = at + 1
    }
  }
  parts.push(text.slice(start))
  return parts
}

/** Where a quoted run ends: quotes are doubled inside, strings may escape with backslashes. */
function closingQuote(text: string, start: number): number {
  const quote = text[start]
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\' && quote !== '`') at += 1
    else if (text[at] === quote) {
      if (text[at + 1] !== quote) return at
      at += 1
    }
  }
  return text.length
}

function closingParenthesis(text: string, open: number): number {
  let depth = 0
  for (let at = open; at < text.length; at++) {
    const char = text[at]
    if (char === '`' || char === "'" || char === '"') at = closingQuote(text, at)
    else if (char === '(') depth += 1
    else if (char === ')') {
      depth -= 1
      if (depth === 0) return at
    }
  }
  return -1
}

function openingParenthesis(text: string): number {
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '`') at = closingQuote(text, at)
    else if (text[at] === '(') return at
  }
  return -1
}

const foreignKey = /^(?:CONSTRAINT `(?:[^`]|``)*` )?FOREIGN KEY/
const uniqueKey = /^UNIQUE KEY/
const plainKey = /^(?:KEY|INDEX)\b/
const specialKey = /^(?:FULLTEXT|SPATIAL|VECTOR) (?:KEY|INDEX)/

/** What stands before a table's columns and keys, these, and what follows: `items` between `head` and `tail` give the whole. */
export type TableParts = {
  readonly head: string
  readonly items: readonly string[]
  readonly tail: string
}

/** Undefined for a statement that lists nothing. */
export function takeApart(create: string): TableParts | undefined {
  const open = openingParenthesis(create)
  const close = open < 0 ? -1 : closingParenthesis(create, open)
  if (close < 0) return undefined
  const items = splitTop(create.slice(open + 1, close)).map((item) => item.trim())
  return { head: create.slice(0, open + 1), items, tail: create.slice(close) }
}

export function putTogether({ head, items, tail }: TableParts): string {
  return `${head}\n  ${items.join(',\n  ')}\n${tail}`
}

/** Takes `SHOW CREATE TABLE`'s text apart. With `defer` false only foreign keys are taken out. */
export function splitTable(create: string, defer: boolean): SplitTable {
  const parts = takeApart(create)
  if (!parts) return { create, indexes: [], foreignKeys: [] }
  const { items, tail } = parts
  const primary = items.some((item) => item.startsWith('PRIMARY KEY'))
  const counter = items.find((item) => / AUTO_INCREMENT\b/.test(withoutStrings(item)))
  const counterName = counter && /^`(?:[^`]|``)+`/.exec(counter)?.[0]
  // A table without primary key is stored along its first unique one; partitions must be in every unique key.
  const keepUnique = !primary || / PARTITION BY /i.test(tail.replaceAll('\n', ' '))
  const kept: string[] = []
  const together: string[] = []
  const alone: string[] = []
  const foreignKeys: string[] = []
  for (const item of items) {
    const needed =
      counterName !== undefined &&
      item.includes(`(${counterName}`) &&
      !primaryHas(items, counterName)
    if (foreignKey.test(item)) foreignKeys.push(`ADD ${item}`)
    else if (!defer || needed) kept.push(item)
    else if (specialKey.test(item)) alone.push(`ADD ${item}`)
    else if (plainKey.test(item) || (uniqueKey.test(item) && !keepUnique))
      together.push(`ADD ${item}`)
    else kept.push(item)
  }
  const indexes = [...(together.length > 0 ? [together] : []), ...alone.map((clause) => [clause])]
  return {
    create: putTogether({ ...parts, items: kept }),
    indexes,
    foreignKeys,
  }
}

/**
 * The statement that adds foreign keys, as a server takes it. MySQL 5.6 adds them in place under names that it then does
 * not find, where these have other characters than letters and digits: every row of the child is refused.
 */
export function adaptForeignKeys(alter: string, flavor: Flavor): string {
  if (flavor.family === 'mariadb' || flavor.number >= 50_700) return alter
  const isOdd = [...readWords(alter)].some(({ kind, text }) => kind === 'name' && /\W/.test(text))
  return isOdd ? `${alter}, ALGORITHM = COPY` : alter
}

/** Whether the primary key starts with the column, so that no other index is needed for its counter. */
function primaryHas(items: readonly string[], column: string): boolean {
  return items.some((item) => item.startsWith(`PRIMARY KEY (${column}`))
}

function withoutStrings(text: string): string {
  return text.replaceAll(/'(?:[^'\\]|\\.|'')*'/gs, "''")
}
