import { cellAbsent, cellNull } from '#change/batch'
import { quoteName } from '../rows-sql.ts'
import type { Cells } from './encode.kernel.ts'
import type { RowChange } from './plan.ts'
import type { KeyColumn, PreparedTable, WrittenColumn } from './table.ts'

/** Of which image a parameter is, and of which column of the relation. */
type Parameter = { readonly image: 'before' | 'after'; readonly index: number }

export type Statement = {
  readonly sql: string
  readonly parameters: readonly Parameter[]
  /** Where the parameters are from the first image on that they need: the one before, when any is of it. */
  readonly places: Int32Array
  readonly needsBefore: boolean
}

/** A statement's parameters as they are in the cells of a change. */
export function cellsOf(change: RowChange, statement: Statement): Cells {
  const { bytes, cells } = change.run
  const { places, needsBefore, parameters } = statement
  if (needsBefore) return { bytes, cells, base: change.before, places }
  if (change.absent === '' || change.before < 0) return { bytes, cells, base: change.after, places }
  // What an update does not send is as it was, where the old image tells that.
  const mixed = parameters.map(({ index }) => {
    const isOld = cells[change.after + index * 2] === cellAbsent
    return (isOld ? change.before : change.after) + index * 2
  })
  return { bytes, cells, base: 0, places: Int32Array.from(mixed) }
}

function statement(sql: string, parameters: readonly Parameter[], columns: number): Statement {
  const needsBefore = parameters.some(({ image }) => image === 'before')
  const places = parameters.map(
    ({ image, index }) => index * 2 + (needsBefore && image === 'after' ? columns * 2 : 0),
  )
  return { sql, parameters, places: Int32Array.from(places), needsBefore }
}

/** The statements for a table, each made when it is wanted first. */
export class TableStatements {
  readonly #table: PreparedTable
  readonly #made = new Map<string, Statement>()
  /** Whether arrays of texts can be cast to what the columns want. */
  readonly castable: boolean
  readonly keyCastable: boolean

  constructor(table: PreparedTable) {
    this.#table = table
    this.castable = table.columns.every((column) => column.target.castable)
    this.keyCastable = table.key?.every((column) => column.target.castable) === true
  }

  get copySql(): string {
    const { form, columns } = this.#table
    const list = columns.map(({ target }) => quoteName(target.name)).join(', ')
    return `copy ${form.only.replace(/^only /, '')}${list && ` (${list})`} from stdin`
  }

  /** Parameters of a whole new row. */
  get whole(): readonly Parameter[] {
    return this.#table.columns.map(({ index }) => ({ image: 'after', index }))
  }

  insert(how: 'plain' | 'upsert' | 'unless-there', many: boolean): Statement {
    return this.#make(`insert ${how} ${many}`, () => {
      const { columns } = this.#table
      const source = many
        ? `select ${columns.map(({ target }, at) => `s.c${at}::${target.cast}`).join(', ')} from ${arrays(columns.length)}`
        : `values (${columns.map((_, at) => `$${at + 1}`).join(', ')})`
      const sql = `insert into ${this.#into(columns)} ${columns.length === 0 ? 'default values' : `overriding system value ${source}`}`
      return { sql: sql + this.#onConflict(how), parameters: this.whole }
    })
  }

  #into(columns: readonly WrittenColumn[]): string {
    const path = this.#table.shown
    if (columns.length === 0) return path
    return `${path} (${columns.map(({ target }) => quoteName(target.name)).join(', ')})`
  }

  #onConflict(how: 'plain' | 'upsert' | 'unless-there'): string {
    if (how === 'plain') return ''
    if (how === 'unless-there') return ' on conflict do nothing'
    const { columns } = this.#table
    const key = this.#key
    const set = columns
      .filter(({ index, target }) => isSettable(target) && !isIn(key, index))
      .map(({ target }) => `${quoteName(target.name)} = excluded.${quoteName(target.name)}`)
    const names = key.map(({ target }) => quoteName(target.name)).join(', ')
    return ` on conflict (${names}) do ${set.length === 0 ? 'nothing' : `update set ${set.join(', ')}`}`
  }

  /** An update of the columns that the change has; undefined for many rows where that cannot be said for all together. */
  update(change: RowChange, many: boolean): Statement | undefined {
    const { key } = this.#table
    if (!key) return many ? undefined : this.#updateScan(change)
    const set = this.#setColumns(change)
    const isCastable = this.keyCastable && set.every(({ target }) => target.castable)
    if (many && (set.length === 0 || !isCastable)) return undefined
    return this.#make(`update ${change.absent} ${change.moves} ${many}`, () => {
      const { form } = this.#table
      const parameters: Parameter[] = [
        ...set.map(({ index }) => ({ image: 'after', index }) as const),
        ...key.map(({ index }) => ({ image: 'before', index }) as const),
      ]
      const value = (at: number, cast: string) =>
        many ? `s.c${at}::${cast}` : isTyped(at, set.length) ? `$${at + 1}` : `$${at + 1}::${cast}`
      const where = key
        .map(
          (one, at) =>
            `t.${quoteName(one.target.name)} ${one.equals} ${value(at + set.length, one.target.cast)}`,
        )
        .join(' and ')
      if (set.length === 0) {
        return { sql: `select from ${form.only} t where ${where} for update`, parameters }
      }
      const list = set.map(
        ({ target }, at) => `${quoteName(target.name)} = ${value(at, target.cast)}`,
      )
      const from = many ? ` from ${arrays(parameters.length)}` : ''
      return {
        sql: `update ${form.only} t set ${list.join(', ')}${from} where ${where}`,
        parameters,
      }
    })
  }

  delete(change: RowChange, many: boolean): Statement | undefined {
    const { key, form } = this.#table
    if (!key) return many ? undefined : this.#deleteScan(change)
    if (many && !this.keyCastable) return undefined
    return this.#make(`delete ${many}`, () => {
      const value = (at: number, cast: string) =>
        many ? `s.c${at}::${cast}` : `$${at + 1}::${cast}`
      const where = key.map(
        (one, at) => `t.${quoteName(one.target.name)} ${one.equals} ${value(at, one.target.cast)}`,
      )
      return {
        sql: `delete from ${form.only} t${many ? ` using ${arrays(key.length)}` : ''} where ${where.join(' and ')}`,
        parameters: key.map(({ index }) => ({ image: 'before', index })),
      }
    })
  }

  /** The row that is found by the key of an image, as JSON. */
  find(image: 'before' | 'after'): Statement | undefined {
    const { key, form } = this.#table
    if (!key) return undefined
    return this.#make(`find ${image}`, () => ({
      sql: `select pg_catalog.to_jsonb(t)::text from ${form.only} t where ${keyIs(key, 0)}`,
      parameters: key.map(({ index }) => ({ image, index })),
    }))
  }

  #setColumns(change: RowChange): readonly WrittenColumn[] {
    const key = this.#key
    const absent = new Set(change.absent.split(',').filter(Boolean).map(Number))
    return this.#table.columns.filter(
      ({ index, target }) =>
        !absent.has(index) && (isIn(key, index) ? change.moves : isSettable(target)),
    )
  }

  get #key(): readonly KeyColumn[] {
    return this.#table.key ?? []
  }

  // Of rows that are alike just one is meant. https://www.postgresql.org/docs/current/ddl-system-columns.html
  #updateScan(change: RowChange): Statement {
    const set = this.#setColumns(change)
    const pattern = this.#nullPattern(change)
    return this.#make(`update ${change.absent} ${pattern}`, () => {
      const { where, parameters } = this.#alike(pattern, set.length)
      const list = set.map(({ target }, at) => `${quoteName(target.name)} = $${at + 1}`)
      const { only } = this.#table.form
      return {
        sql:
          set.length === 0
            ? `select from ${only} t where ${where}`
            : `update ${only} t set ${list.join(', ')} where ${where}`,
        parameters: [
          ...set.map(({ index }) => ({ image: 'after', index }) as const),
          ...parameters,
        ],
      }
    })
  }

  #deleteScan(change: RowChange): Statement {
    const pattern = this.#nullPattern(change)
    return this.#make(`delete ${pattern}`, () => {
      const { where, parameters } = this.#alike(pattern, 0)
      return { sql: `delete from ${this.#table.form.only} t where ${where}`, parameters }
    })
  }

  /** For each column whether the image before has NULL there, or does not have it. */
  #nullPattern(change: RowChange): string {
    const { cells } = change.run
    return this.#table.columns
      .map(({ index }) => {
        const cell = cells[change.before + index * 2]
        return cell === cellNull ? 'n' : cell === cellAbsent ? 'a' : 'v'
      })
      .join('')
  }

  #alike(pattern: string, used: number): { where: string; parameters: Parameter[] } {
    const { form, columns } = this.#table
    const parameters: Parameter[] = []
    const conditions = columns.flatMap(({ index, target }, at) => {
      const name = `s.${quoteName(target.name)}`
      if (pattern[at] === 'a') return []
      if (pattern[at] === 'n') return [`${name} is null`]
      parameters.push({ image: 'before', index })
      const value = `$${used + parameters.length}`
      const isPlain =
        target.castable && (target.sameness === 'bytes' || target.sameness === 'blanks')
      if (isPlain) return [`${name} = ${value}::${target.cast}`]
      return [`${name}::pg_catalog.text = ${value}::pg_catalog.text collate "C"`]
    })
    const where = conditions.length === 0 ? 'true' : conditions.join(' and ')
    return {
      where: form.partitioned
        ? `(t.tableoid, t.ctid) = (select s.tableoid, s.ctid from ${form.only} s where ${where} limit 1)`
        : `t.ctid = (select s.ctid from ${form.only} s where ${where} limit 1)`,
      parameters,
    }
  }

  #make(
    name: string,
    make: () => { readonly sql: string; readonly parameters: readonly Parameter[] },
  ): Statement {
    const known = this.#made.get(name)
    if (known) return known
    const { sql, parameters } = make()
    const made = statement(sql, parameters, this.#table.relation.columns.length)
    this.#made.set(name, made)
    return made
  }
}

/** The rows of a key, by parameters from `$first` on. */
export function keyIs(key: readonly KeyColumn[], used: number): string {
  return key
    .map(
      (one, at) =>
        `t.${quoteName(one.target.name)} ${one.equals} $${used + at + 1}::${one.target.cast}`,
    )
    .join(' and ')
}

// A parameter that is assigned has its column's type, domains and all.
function isTyped(at: number, assigned: number): boolean {
  return at < assigned
}

function arrays(count: number): string {
  const values = Array.from({ length: count }, (_, at) => `$${at + 1}::pg_catalog.text[]`)
  const names = Array.from({ length: count }, (_, at) => `c${at}`)
  // Only by its bare name it takes several arrays.
  return `unnest(${values.join(', ')}) s(${names.join(', ')})`
}

function isSettable(target: WrittenColumn['target']): boolean {
  return target.identity !== 'always'
}

function isIn(key: readonly KeyColumn[], index: number): boolean {
  return key.some((one) => one.index === index)
}
