import { createHash } from 'node:crypto'
import { Fault } from '#base/faults'
import type { Mark, OpenApply } from '#change/apply'
import type { Statement } from '#change/batch'
import type { Flavor } from '../flavor.ts'
import { serverErrorNumber } from '../protocol/server-error.ts'
import { Session } from '../protocol/session.ts'
import { readCollations } from '../replay-session.ts'
import { readVariables } from '../server.ts'
import { replaceAt } from '../sql-words.ts'
import { quoteName, quoteNames } from '../sql.ts'
import { markDefinition, noteIntent, readIntent } from './marks.ts'
import { type Definition, parseDefinition, type Reference } from './statement-parts.ts'
import { modesOf, settingsFor } from './statement-settings.ts'

type Options = { readonly signal: AbortSignal }

/** A statement as it is run on the target, and the objects that it changes there. */
type Planned = {
  readonly sql: string
  /** What unqualified names in it are of; undefined where there are none. */
  readonly database: string | undefined
  /** `SHOW` statements whose answers tell how its objects look. */
  readonly shows: readonly string[]
  readonly repeats: boolean
  /** Drops tables: what is gone already need not be dropped. */
  readonly again: string
  /** Makes a database that gets the collation of the server. */
  readonly takesDefault?: boolean | undefined
}

type Parts = {
  readonly options: OpenApply
  readonly flavor: Flavor
  readonly control: Session
  readonly lowersNames: boolean
}

/** Runs the source's definitions on the target, each once. */
export class Definitions {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async run(statement: Statement, mark: Mark, options: Options): Promise<void> {
    const { control, options: apply } = this.#parts
    const planned = this.#plan(statement)
    if (planned) await this.#once(statement, planned, mark, options)
    await markDefinition(control, apply.link, mark, options)
  }

  async #once(statement: Statement, planned: Planned, mark: Mark, options: Options): Promise<void> {
    const { control, options: apply } = this.#parts
    const { history, at: low } = mark.low
    const digest = digestOf([statement.database, statement.sql])
    const noted = await readIntent(control, apply.link, options)
    const now = await this.#looks(planned, options)
    const same = noted?.history === history && noted.low === low && noted.digest === digest
    if (planned.takesDefault && now === digestOf(['none']))
      await this.#checkDefault(statement, options)
    if (!same) {
      await noteIntent(control, apply.link, { history, low, digest, before: now }, options)
      return this.#execute(statement, planned.sql, planned.database, options)
    }
    // Whoever noted it was killed, or comes back to rows behind it.
    if (noted.ran || noted.before !== now) return
    if (!planned.repeats) {
      throw new Fault(
        'different',
        `run again on the target: ${shorten(statement.sql)}: whether it ran cannot be told`,
        {
          hint: 'Look which of its tables has whose rows, make it so by hand if need be, and copy the tables anew.',
        },
      )
    }
    await this.#execute(statement, planned.again, planned.database, options)
  }

  /** The source's own default may be one that this server does not have. */
  async #checkDefault(statement: Statement, options: Options): Promise<void> {
    const id = statement.settings['@@session.collation_server']
    if (id === undefined) return
    const collations = await readCollations(this.#parts.control, options.signal)
    if (collations.has(Number(id))) return
    throw refuse(
      statement,
      `it takes the source's default collation (${id}), which the target has not`,
    )
  }

  /** In a session of its own, whose settings are the statement's. */
  async #execute(
    statement: Statement,
    sql: string,
    database: string | undefined,
    options: Options,
  ): Promise<void> {
    const { flavor, control } = this.#parts
    await using session = await Session.open(control.endpoint, options)
    const collations = await readCollations(session, options.signal)
    const present = await readVariables(
      session,
      ['sql_generate_invisible_primary_key', 'sql_require_primary_key'],
      options.signal,
    )
    for (const [name, value] of present) {
      if (value === 'ON') await session.query(`SET SESSION ${name} = OFF`, options)
    }
    if (database !== undefined) await session.query(`USE ${quoteName(database)}`, options)
    for (const one of settingsFor(statement.settings, flavor, collations)) {
      await session.query(one, options)
    }
    await session.query(sql, options, `run on the target ${shorten(statement.sql)}`)
  }

  /** A digest of how the objects look now. */
  async #looks({ shows }: Planned, options: Options): Promise<string> {
    const { control } = this.#parts
    const looks: string[] = []
    for (const sql of shows) {
      try {
        const rows = await control.texts(sql, options)
        // Where a counter stands is not the definition's.
        looks.push(JSON.stringify(rows).replace(/ AUTO_INCREMENT=\d+/, ''))
      } catch (error) {
        // No such database, table, routine, sequence or column of one.
        const number = serverErrorNumber(error)
        if (number === undefined || !goneNumbers.has(number)) throw error
        looks.push('none')
      }
    }
    return digestOf(looks)
  }

  #plan(statement: Statement): Planned | undefined {
    const { sql, database, settings } = statement
    if (sql.includes('\ufffd')) {
      throw refuse(
        statement,
        'it is in a character set other than UTF-8, and has letters beyond ASCII',
      )
    }
    const modes = modesOf(settings)
    const definition = parseDefinition(sql, database, modes)
    if (!definition) throw refuse(statement, 'it is not understood')
    switch (definition.kind) {
      case 'none':
        return undefined
      case 'active':
        this.#parts.options.log.warn(
          `not run on the target while it takes changes: ${shorten(sql)}`,
        )
        return undefined
      case 'table':
        return this.#table(statement, definition)
      case 'drop-tables':
        return this.#drop(definition.own)
      case 'rename':
        return this.#rename(statement, definition.pairs)
      case 'database':
        return this.#databaseOf(statement, definition)
      case 'program':
        return this.#program(statement, definition)
      default:
        return definition satisfies never
    }
  }

  #table(
    statement: Statement,
    { own, refers, to, repeats, startsAt }: Extract<Definition, { kind: 'table' }>,
  ): Planned | undefined {
    const all = [own, ...refers, ...(to ? [to] : [])]
    const wanted = this.#accepts(own)
    if (to && this.#accepts(to) !== wanted) {
      throw refuse(statement, 'it takes a table out of what is carried, or brings one in')
    }
    if (!wanted) {
      if (!repeats && refers.some((one) => this.#accepts(one))) {
        throw refuse(statement, 'it changes a table that is carried by way of one that is not')
      }
      return undefined
    }
    if (!repeats && !refers.every((one) => this.#accepts(one))) {
      throw refuse(statement, 'it takes rows from a table that is not carried')
    }
    const places = all
      .toSorted((a, b) => a.start - b.start)
      .map((one) => ({ start: one.start, end: one.end, by: this.#quoted(one) }))
    const end =
      startsAt === undefined ? [] : [{ start: startsAt, end: statement.sql.length, by: '' }]
    const sql = replaceAt(statement.sql, [...places, ...end])
    const shown = to ? [own, to] : repeats ? [own] : all
    return {
      sql,
      again: sql,
      database: undefined,
      repeats,
      shows: shown.map((one) => `SHOW CREATE TABLE ${this.#quoted(one)}`),
    }
  }

  #drop(own: readonly Reference[]): Planned | undefined {
    const names = own.filter((one) => this.#accepts(one)).map((one) => this.#quoted(one))
    if (names.length === 0) return undefined
    const sql = `DROP TABLE IF EXISTS ${names.join(', ')}`
    const shows = names.map((name) => `SHOW CREATE TABLE ${name}`)
    return { sql, again: sql, database: undefined, repeats: true, shows }
  }

  #rename(
    statement: Statement,
    pairs: readonly (readonly [Reference, Reference])[],
  ): Planned | undefined {
    const kept = pairs.filter(([from, to]) => {
      const wanted = this.#accepts(from)
      if (wanted === this.#accepts(to)) return wanted
      throw refuse(statement, 'it takes a table out of what is carried, or brings one in')
    })
    if (kept.length === 0) return undefined
    const names = kept.map(([from, to]) => [this.#quoted(from), this.#quoted(to)] as const)
    const sql = `RENAME TABLE ${names.map(([from, to]) => `${from} TO ${to}`).join(', ')}`
    const shows = [...new Set(names.flat())].map((name) => `SHOW CREATE TABLE ${name}`)
    // Tables of one form that change places look the same afterwards.
    return { sql, again: sql, database: undefined, repeats: kept.length === 1, shows }
  }

  #databaseOf(
    statement: Statement,
    { name, verb, place }: Extract<Definition, { kind: 'database' }>,
  ): Planned | undefined {
    const { selection } = this.#parts.options
    if (!selection.accepts([name])) return undefined
    const target = selection.map([name])[0] ?? name
    if (verb === 'DROP' && target !== name) {
      throw refuse(statement, `${target} may hold more than came from ${name}`)
    }
    const by = quoteName(target)
    const sql = place ? replaceAt(statement.sql, [{ ...place, by }]) : statement.sql
    const plain = verb === 'CREATE' && !/\bif\s+not\s+exists\b/i.test(sql)
    const own = plain ? sql.replace(/\b(database|schema)\b/i, '$1 IF NOT EXISTS') : sql
    return {
      sql: own,
      again: verb === 'DROP' ? `DROP DATABASE IF EXISTS ${by}` : own,
      database: place ? undefined : target,
      repeats: true,
      takesDefault: verb === 'CREATE' && !/\b(?:charset|character\s+set|collate)\b/i.test(sql),
      shows: [`SHOW CREATE DATABASE ${by}`],
    }
  }

  /** Views and programs may name anything: they are run as they are, where nothing has another name. */
  #program(
    statement: Statement,
    { own, what }: Extract<Definition, { kind: 'program' }>,
  ): Planned | undefined {
    const wanted = own.filter((one) => this.#accepts(one))
    if (wanted.length === 0) return undefined
    const renamed = wanted.find((one) => this.#quoted(one) !== quoteNames(one.database, one.name))
    if (renamed || wanted.length !== own.length) {
      throw refuse(
        statement,
        'names in it are others on the target, and not all of them can be told',
      )
    }
    const { sql, database } = statement
    const isDrop = /^\s*(?:\/\*.*?\*\/\s*)*drop\b/is.test(sql)
    const mayNot = isDrop && !/\bif\s+exists\b/i.test(sql)
    return {
      sql,
      again: mayNot ? sql.replace(new RegExp(`\\b${what}\\b`, 'i'), '$& IF EXISTS') : sql,
      database: database === '' ? undefined : this.#mapDatabase(database),
      repeats: true,
      shows: own.map((one) => `SHOW CREATE ${what} ${quoteNames(one.database, one.name)}`),
    }
  }

  #mapDatabase(name: string): string {
    return this.#parts.options.selection.map([name])[0] ?? name
  }

  #accepts({ database, name }: Reference): boolean {
    return this.#parts.options.selection.accepts([database, name])
  }

  #quoted({ database, name }: Reference): string {
    const mapped = this.#parts.options.selection.map([database, name])
    const [first = database, second = name] = mapped
    return this.#parts.lowersNames
      ? quoteNames(first.toLowerCase(), second.toLowerCase())
      : quoteNames(first, second)
  }
}

/** No such table, database, routine, view, sequence. */
const goneNumbers = new Set([1146, 1049, 1305, 1347, 4089, 4091])

function digestOf(texts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(texts)).digest('hex')
}

function refuse(statement: Statement, why: string): Fault {
  return new Fault('unsupported', `run on the target: ${shorten(statement.sql)}: ${why}`, {
    hint: 'Make the change by hand on the target, and copy anew the tables that it concerns.',
  })
}

function shorten(sql: string): string {
  return sql.replaceAll(/\s+/g, ' ').trim().slice(0, 120)
}
