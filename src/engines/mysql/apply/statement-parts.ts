import { readWords, type Word } from '../sql-words.ts'

/** A table or other object that a statement names. */
export type Reference = {
  readonly database: string
  readonly name: string
  /** Where it stands in the text. */
  readonly start: number
  readonly end: number
}

/** What a definition does to which objects. */
export type Definition =
  /** One table, and what else its text refers to. */
  | {
      readonly kind: 'table'
      readonly own: Reference
      readonly refers: readonly Reference[]
      /** Where it gets another name. */
      readonly to: Reference | undefined
      /** Whether it may be run a second time, where the first left nothing to be seen. */
      readonly repeats: boolean
      /** Rows follow in the same transaction (MySQL): a clause that this text ends with. */
      readonly startsAt: number | undefined
    }
  | { readonly kind: 'drop-tables'; readonly own: readonly Reference[] }
  | { readonly kind: 'rename'; readonly pairs: readonly (readonly [Reference, Reference])[] }
  | {
      readonly kind: 'database'
      readonly verb: string
      readonly name: string
      /** Undefined where the text does not name it. */
      readonly place: { readonly start: number; readonly end: number } | undefined
    }
  /** Objects whose text may hold names of any others. */
  | {
      readonly kind: 'program'
      readonly what: 'VIEW' | 'PROCEDURE' | 'FUNCTION' | 'SEQUENCE' | 'PACKAGE'
      readonly own: readonly Reference[]
    }
  /** What must not act on a target that is being written to. */
  | { readonly kind: 'active'; readonly what: string }
  /** Accounts and the server's own affairs. */
  | { readonly kind: 'none' }

export type Modes = { readonly ansiQuotes: boolean; readonly plainBackslash: boolean }

/** Takes a definition apart as far as it has to be known; undefined for what is not understood. */
export function parseDefinition(
  sql: string,
  database: string,
  modes: Modes,
): Definition | undefined {
  const words = [...readWords(sql, modes)].filter((word) => word.kind !== 'comment')
  return new Parser(words, database).parse()
}

const programs = ['VIEW', 'PROCEDURE', 'FUNCTION', 'SEQUENCE', 'PACKAGE'] as const
const idle = new Set([
  'USER',
  'ROLE',
  'SERVER',
  'TABLESPACE',
  'LOGFILE',
  'UNDO',
  'INSTANCE',
  'RESOURCE',
  'LIBRARY',
])

class Parser {
  readonly #words: readonly Word[]
  readonly #database: string
  #at = 0

  constructor(words: readonly Word[], database: string) {
    this.#words = words
    this.#database = database
  }

  parse(): Definition | undefined {
    const verb = this.#next()
    switch (verb) {
      case 'CREATE':
      case 'ALTER':
      case 'DROP':
        return this.#object(verb)
      case 'RENAME':
        return this.#rename()
      case 'TRUNCATE': {
        this.#skip('TABLE')
        const own = this.#reference()
        return own && table(own)
      }
      case 'GRANT':
      case 'REVOKE':
      case 'SET':
      case 'FLUSH':
      case 'ANALYZE':
      case 'OPTIMIZE':
      case 'REPAIR':
      case 'INSTALL':
      case 'UNINSTALL':
        return { kind: 'none' }
      default:
        return undefined
    }
  }

  /** The kind of an object stands behind words of any number: OR REPLACE, DEFINER = ... */
  #object(verb: string): Definition | undefined {
    const kinds = new Set<string>([
      'TABLE',
      'TABLES',
      'INDEX',
      'DATABASE',
      'SCHEMA',
      'TRIGGER',
      'EVENT',
      ...programs,
      ...idle,
    ])
    while (this.#at < this.#words.length && !kinds.has(this.#peek())) this.#at++
    const kind = this.#next()
    if (kind === '') return undefined
    if (kind === 'TABLE' || kind === 'TABLES') {
      return verb === 'DROP' ? this.#dropTables() : this.#table()
    }
    if (kind === 'INDEX') return this.#index()
    if (kind === 'DATABASE' || kind === 'SCHEMA') return this.#databaseOf(verb)
    if (kind === 'TRIGGER' || kind === 'EVENT') return { kind: 'active', what: kind }
    const what = programs.find((one) => one === kind)
    if (what === undefined) return { kind: 'none' }
    this.#skip('BODY')
    this.#condition()
    const own = verb === 'DROP' ? this.#list() : [this.#reference()]
    const known = own?.filter((one) => one !== undefined)
    return known && known.length === own?.length ? { kind: 'program', what, own: known } : undefined
  }

  #condition(): void {
    if (this.#peek() !== 'IF') return
    this.#at++
    this.#skip('NOT')
    this.#skip('EXISTS')
  }

  #table(): Definition | undefined {
    this.#condition()
    const own = this.#reference()
    if (!own) return undefined
    const refers: Reference[] = []
    let to: Reference | undefined
    let repeats = true
    let startsAt: number | undefined
    while (this.#at < this.#words.length) {
      const word = this.#words[this.#at]
      const said = this.#next()
      const names = this.#namesNext(said)
      // Rows that come from elsewhere are not in the text.
      if (said === 'SELECT' || said === 'DISCARD' || said === 'IMPORT') return undefined
      if (said === 'START' && this.#peek() === 'TRANSACTION') startsAt = word?.start
      if (names === undefined) continue
      const reference = this.#reference()
      if (!reference) return undefined
      if (names === 'to') to = reference
      else refers.push(reference)
      if (names === 'exchange') repeats = false
    }
    return { kind: 'table', own, refers, to, repeats, startsAt }
  }

  /** Whether a table's name is next, and what for. */
  #namesNext(said: string): 'refers' | 'to' | 'exchange' | undefined {
    if (said === 'REFERENCES' || said === 'LIKE') return 'refers'
    if (said === 'RENAME') {
      if (['COLUMN', 'INDEX', 'KEY'].includes(this.#peek())) return undefined
      this.#skip('TO')
      this.#skip('AS')
      this.#skip('=')
      return 'to'
    }
    if ((said === 'WITH' || said === 'CONVERT' || said === 'TO') && this.#peek() === 'TABLE') {
      this.#at++
      return 'exchange'
    }
    return undefined
  }

  #dropTables(): Definition | undefined {
    this.#condition()
    const own = this.#list()
    return own && { kind: 'drop-tables', own }
  }

  #list(): Reference[] | undefined {
    const found: Reference[] = []
    do {
      const one = this.#reference()
      if (!one) return undefined
      found.push(one)
    } while (this.#skip(','))
    return found
  }

  #index(): Definition | undefined {
    while (this.#at < this.#words.length && this.#peek() !== 'ON') this.#at++
    this.#at++
    const own = this.#reference()
    return own && table(own)
  }

  #databaseOf(verb: string): Definition | undefined {
    this.#condition()
    const word = this.#words[this.#at]
    const options = ['CHARACTER', 'CHARSET', 'COLLATE', 'DEFAULT', 'ENCRYPTION', 'READ', 'COMMENT']
    if (verb === 'ALTER' && (!word || (word.kind === 'word' && options.includes(this.#peek())))) {
      return { kind: 'database', verb, name: this.#database, place: undefined }
    }
    if (!word || !isName(word)) return undefined
    return { kind: 'database', verb, name: word.text, place: word }
  }

  #rename(): Definition | undefined {
    const kind = this.#next()
    if (kind === 'USER') return { kind: 'none' }
    if (kind !== 'TABLE' && kind !== 'TABLES') return undefined
    this.#condition()
    const pairs: (readonly [Reference, Reference])[] = []
    do {
      const from = this.#reference()
      while (this.#at < this.#words.length && this.#peek() !== 'TO') this.#at++
      this.#at++
      const to = this.#reference()
      if (!from || !to) return undefined
      pairs.push([from, to])
    } while (this.#skip(','))
    return { kind: 'rename', pairs }
  }

  #reference(): Reference | undefined {
    const first = this.#words[this.#at]
    if (!first || !isName(first)) return undefined
    this.#at++
    const dot = this.#words[this.#at]
    const second = this.#words[this.#at + 1]
    if (dot?.text !== '.' || dot.kind !== 'sign' || !second || !isName(second)) {
      const { text: name, start, end } = first
      return { database: this.#database, name, start, end }
    }
    this.#at += 2
    return { database: first.text, name: second.text, start: first.start, end: second.end }
  }

  /** The next word in capitals; empty for what is none. */
  #peek(): string {
    const word = this.#words[this.#at]
    if (!word || word.kind === 'name' || word.kind === 'string') return ''
    return word.text.toUpperCase()
  }

  #next(): string {
    const text = this.#peek()
    this.#at++
    return text
  }

  #skip(text: string): boolean {
    if (this.#peek() !== text) return false
    this.#at++
    return true
  }
}

function isName(word: Word): boolean {
  return word.kind === 'name' || word.kind === 'word'
}

function table(own: Reference): Definition {
  return { kind: 'table', own, refers: [], to: undefined, repeats: true, startsAt: undefined }
}
