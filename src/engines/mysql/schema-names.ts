import type { ObjectName, Selection } from '#change/schema'
import { readWords, replaceAt, type Word } from './sql-words.ts'
import { quoteName, quoteNames } from './sql.ts'

type Place = { readonly start: number; readonly end: number; readonly by: string }

/** How a program's text is to be read. */
export type Modes = { readonly ansiQuotes?: boolean; readonly plainBackslash?: boolean }

export function modesOf(sqlMode: string): Modes {
  const modes = sqlMode.toUpperCase().split(',')
  return {
    ansiQuotes: modes.includes('ANSI_QUOTES'),
    plainBackslash: modes.includes('NO_BACKSLASH_ESCAPES'),
  }
}

/** Names of a source as they are on the target, in whatever statement they stand. */
export class NameMap {
  readonly #selection: Selection
  /** By database, all that has a name of its own there. */
  readonly #known = new Map<string, Set<string>>()

  constructor(selection: Selection, names: Iterable<readonly [string, string]>) {
    this.#selection = selection
    for (const [database, name] of names) {
      const there = this.#known.get(database) ?? new Set()
      this.#known.set(database, there.add(name))
    }
  }

  database(name: string): string {
    return this.#selection.map([name])[0] ?? name
  }

  object(database: string, name: string): readonly [string, string] {
    const mapped: ObjectName = this.#selection.map([database, name])
    return [mapped[0] ?? database, mapped[1] ?? name]
  }

  /** `database`.`name` of the target, quoted. */
  quoted(database: string, name: string): string {
    return quoteNames(...this.object(database, name))
  }

  isKnown(database: string, name: string): boolean {
    return this.#known.get(database)?.has(name) === true
  }

  /** Whether anything is called otherwise on the target. */
  isRenamed(database: string, name: string): boolean {
    const [mapped, own] = this.object(database, name)
    return mapped !== database || own !== name
  }

  /**
   * A server's own statement for a table: the table's name, those behind REFERENCES, and pairs of a database and a thing in
   * it, all in full.
   */
  table(create: string, database: string, name: string): string {
    const words = [...readWords(create)]
    const first = words.findIndex((word) => word.kind === 'name')
    const own = words[first]
    if (!own) return create
    const places: Place[] = [{ start: own.start, end: own.end, by: this.quoted(database, name) }]
    for (let at = first + 1; at < words.length; at++) {
      const pair = pairAt(words, at)
      if (pair && this.isKnown(pair.database, pair.name)) {
        places.push({ ...pair, by: this.quoted(pair.database, pair.name) })
        at += 2
      } else if (isReferred(words, at) && !pair) {
        const { start, end, text } = words[at] as Word
        places.push({ start, end, by: this.quoted(database, text) })
      }
    }
    return replaceAt(create, places)
  }

  /** Any statement: pairs of a database and a thing in it. Tells which they were. */
  pairs(
    sql: string,
    modes: Modes = {},
  ): { readonly sql: string; readonly seen: readonly (readonly [string, string])[] } {
    const words = [...readWords(sql, modes)]
    const places: Place[] = []
    const seen: (readonly [string, string])[] = []
    for (let at = 0; at < words.length; at++) {
      const pair = pairAt(words, at)
      if (!pair || !this.isKnown(pair.database, pair.name)) continue
      seen.push([pair.database, pair.name])
      if (this.isRenamed(pair.database, pair.name)) {
        places.push({ ...pair, by: this.quoted(pair.database, pair.name) })
      }
      at += 2
    }
    return { sql: replaceAt(sql, places), seen }
  }

  /** Names alone in a program's body that are called otherwise on the target: whether they mean that cannot be told. */
  doubtful(sql: string, database: string, modes: Modes): string[] {
    const words = [...readWords(sql, modes)]
    const found = new Set<string>()
    for (const [at, word] of words.entries()) {
      if (word.kind !== 'name' && word.kind !== 'word') continue
      if (words[at - 1]?.text === '.' || words[at + 1]?.text === '.') continue
      const [, own] = this.object(database, word.text)
      if (this.isKnown(database, word.text) && own !== word.text) found.add(word.text)
    }
    return [...found]
  }
}

function isReferred(words: readonly Word[], at: number): boolean {
  const before = words[at - 1]
  return before?.kind === 'word' && before.text === 'REFERENCES' && words[at]?.kind === 'name'
}

function pairAt(
  words: readonly Word[],
  at: number,
):
  | {
      readonly database: string
      readonly name: string
      readonly start: number
      readonly end: number
    }
  | undefined {
  const [first, dot, second] = words.slice(at, at + 3)
  if (!first || !second || dot?.kind !== 'sign' || dot.text !== '.') return undefined
  const isName = (word: Word) => word.kind === 'name' || word.kind === 'word'
  if (!isName(first) || !isName(second)) return undefined
  return { database: first.text, name: second.text, start: first.start, end: second.end }
}

/** The name of a program's own, behind the words for its kind. */
export function renameProgram(sql: string, kind: string, to: string, modes: Modes): string {
  const words = [...readWords(sql, modes)]
  const kindWords = kind.toUpperCase().split(' ')
  let at = words.findIndex(
    (word) => word.kind === 'word' && word.text.toUpperCase() === kindWords[0],
  )
  if (at < 0) return sql
  at += kindWords.length
  if (words[at]?.kind === 'word' && words[at]?.text.toUpperCase() === 'IF') at += 3
  const first = words[at]
  const last = words[at + 1]?.text === '.' ? words[at + 2] : first
  if (!first || !last) return sql
  return replaceAt(sql, [{ start: first.start, end: last.end, by: to }])
}

/** The table of a trigger, which stands behind the first ON. */
export function renameTriggerTable(sql: string, to: string, modes: Modes): string {
  const words = [...readWords(sql, modes)]
  const at = words.findIndex((word) => word.kind === 'word' && word.text.toUpperCase() === 'ON')
  const first = words[at + 1]
  if (at < 0 || !first) return sql
  const last = words[at + 2]?.text === '.' ? words[at + 3] : first
  return replaceAt(sql, [{ start: first.start, end: last?.end ?? first.end, by: to }])
}

/** How an object is called in findings and ids. */
export function idOf(kind: string, database: string, name?: string): string {
  const plain = (text: string) => (/^[\w$]+$/.test(text) ? text : quoteName(text))
  return `${kind} ${[database, ...(name === undefined ? [] : [name])].map(plain).join('.')}`
}
