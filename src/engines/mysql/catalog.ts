import { Fault, isFault } from '#base/faults'
import type { Flavor } from './flavor.ts'
import type { Session } from './protocol/session.ts'
import { quoteName, quoteNames, quotePlain, quoteText } from './sql.ts'

/**
 * How a column's text goes back in: as it is; as text of a character set, without which JSON and the types of addresses
 * refuse it; as a member of an ENUM, whose empty error value comes back only with a warning; or as the moment until
 * which a row of a system-versioned table held.
 */
export type ColumnLoad = 'plain' | 'text' | 'enum' | 'until'

/**
 * MariaDB's end of a row that is still there is the last moment of a TIMESTAMP, which came later from 11.5 on: under the
 * other one's the row would be history. Whoever takes the rows in says which is its own, be it through the stock client.
 */
const lastMoments = `'2038-01-19 03:14:07.999999','2106-02-07 06:28:15.999999'`
const ownLastMoment = `ELT(1 /*!110500 + 1 */,${lastMoments})`

/** What goes into a column that is not loaded as it is; undefined for one that is. */
export function loadedValue(load: ColumnLoad, value: string): string | undefined {
  if (load === 'text') return `CONVERT(${value} USING utf8mb4)`
  if (load !== 'until') return undefined
  return `IF(${value} IN (${lastMoments}), ${ownLastMoment}, ${value})`
}

const textTypes = new Set(['json', 'uuid', 'inet4', 'inet6'])

export type Column = {
  readonly name: string
  readonly load: ColumnLoad
  /** What is selected; the column itself unless its text would lose something. */
  readonly select: string
}

/** The part of the primary key by which a table can be cut. */
export type KeyColumn = {
  readonly name: string
  readonly type: string
  readonly charset: string | undefined
}

export type Table = {
  readonly database: string
  readonly name: string
  readonly engine: string
  readonly create: string
  readonly columns: readonly Column[]
  readonly key: readonly string[]
  readonly keyHead: KeyColumn | undefined
  readonly rowsGuess: number
  readonly sizeBytes: number
  /** Keeps old rows: the select asks for them too (MariaDB). */
  readonly versioned: boolean
  /** Changes when somebody puts another table in this one's place. */
  readonly createdAt: string
}

/** A statement that makes an object, with the session settings that were in force when it was made. */
export type Program = {
  readonly kind: 'procedure' | 'function' | 'package' | 'package body' | 'trigger' | 'event'
  readonly database: string
  readonly name: string
  /** In the character set of its maker. */
  readonly create: Buffer
  readonly sqlMode: string
  readonly charset: string
  readonly collation: string
  readonly databaseCollation: string
  readonly timeZone?: string | undefined
  /** A trigger's. */
  readonly table?: string | undefined
}

export type View = {
  readonly database: string
  readonly name: string
  readonly create: Buffer
  readonly charset: string
  readonly collation: string
  readonly columns: readonly string[]
}

export type Sequence = {
  readonly database: string
  readonly name: string
  readonly create: string
  readonly next: string
  readonly cycles: string
}

export type Catalog = {
  readonly databases: readonly { readonly name: string; readonly create: string }[]
  readonly tables: readonly Table[]
  readonly sequences: readonly Sequence[]
  readonly views: readonly View[]
  readonly programs: readonly Program[]
}

/** Databases of the server itself: made by its own initialisation, never copied. */
export const systemDatabases: ReadonlySet<string> = new Set([
  'information_schema',
  'performance_schema',
  'mysql',
  'sys',
  'ndbinfo',
])

/** For a select of the tables that are not the server's own. */
export const fromUserTables =
  `FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ` +
  `AND TABLE_SCHEMA NOT IN (${[...systemDatabases].map((name) => `'${name}'`).join(',')})`

/** Engines whose rows live elsewhere, or nowhere. */
const rowlessEngines = new Set(['BLACKHOLE', 'FEDERATED', 'CONNECT', 'SPIDER', 'MRG_MYISAM'])

/** Engines that a consistent snapshot covers. */
export function isTransactional(engine: string): boolean {
  return /^(innodb|rocksdb|tokudb)$/i.test(engine)
}

export function hasRows(table: Table): boolean {
  return !rowlessEngines.has(table.engine.toUpperCase())
}

/** Whether something is read: a database (without a name), or a thing in it. */
export type Wanted = (database: string, name: string | undefined) => boolean

/** Reads everything that makes up the user's databases but the rows. */
export async function readCatalog(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
  wants: Wanted = () => true,
): Promise<Catalog> {
  const reader = new CatalogReader({ session, flavor, signal, wants })
  return reader.read()
}

class CatalogReader {
  readonly #session: Session
  readonly #flavor: Flavor
  readonly #signal: AbortSignal
  readonly #wants: Wanted

  constructor(parts: {
    readonly session: Session
    readonly flavor: Flavor
    readonly signal: AbortSignal
    readonly wants: Wanted
  }) {
    this.#session = parts.session
    this.#flavor = parts.flavor
    this.#signal = parts.signal
    this.#wants = parts.wants
  }

  async read(): Promise<Catalog> {
    await this.#run(`SET NAMES utf8mb4`)
    await this.#run(`SET SESSION sql_mode = '', sql_quote_show_create = 1`)
    const names = (await this.#texts('SHOW DATABASES')).map(([name]) => name ?? '')
    const databases: { name: string; create: string }[] = []
    const parts = {
      tables: [] as Table[],
      sequences: [] as Sequence[],
      views: [] as View[],
      programs: [] as Program[],
    }
    for (const name of names.filter((own) => !systemDatabases.has(own.toLowerCase()))) {
      // A leading # marks folders that are no databases, such as lost+found.
      if (name.startsWith('#mysql50#') || !this.#wants(name, undefined)) continue
      const row = await this.#first(`SHOW CREATE DATABASE ${quoteName(name)}`)
      databases.push({ name, create: row[1] ?? '' })
      await this.#database(name, parts)
    }
    return { databases, ...parts }
  }

  async #database(
    database: string,
    into: { tables: Table[]; sequences: Sequence[]; views: View[]; programs: Program[] },
  ): Promise<void> {
    const where = isName('TABLE_SCHEMA', database)
    const rows = await this.#texts(
      `SELECT TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE, ''), COALESCE(TABLE_ROWS, 0), COALESCE(DATA_LENGTH, 0),
       COALESCE(CREATE_TIME, '') FROM information_schema.TABLES WHERE ${where} ORDER BY TABLE_NAME`,
    )
    const columns = group(await this.#columns(where))
    const keys = group(
      await this.#texts(
        `SELECT TABLE_NAME, COLUMN_NAME, COALESCE(SUB_PART, '') FROM information_schema.STATISTICS
         WHERE ${where} AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX`,
      ),
    )
    for (const row of rows) {
      const name = row[0] ?? ''
      if (!this.#wants(database, name)) continue
      // Of a table that somebody holds the server shows no more than the name.
      if (row[1] === null || (row[1] === 'BASE TABLE' && !columns.has(name))) {
        throw new Fault('locked', `read what ${quoteNames(database, name)} is: it is being changed`)
      }
      if (row[1] === 'VIEW')
        into.views.push(await this.#view(database, name, columns.get(name) ?? []))
      else if (row[1] === 'SEQUENCE') into.sequences.push(await this.#sequence(database, name))
      else if (row[1] === 'BASE TABLE' || row[1] === 'SYSTEM VERSIONED') {
        const parts = { columns: columns.get(name) ?? [], keys: keys.get(name) ?? [] }
        into.tables.push(await this.#table(database, row, parts))
      }
    }
    await this.#programs(database, into.programs)
  }

  #columns(where: string): Promise<(string | null)[][]> {
    return this.#texts(
      `SELECT TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE), EXTRA, COALESCE(CHARACTER_SET_NAME, '')
       FROM information_schema.COLUMNS WHERE ${where} ORDER BY TABLE_NAME, ORDINAL_POSITION`,
    )
  }

  async #table(
    database: string,
    row: (string | null)[],
    parts: { readonly columns: (string | null)[][]; readonly keys: (string | null)[][] },
  ): Promise<Table> {
    const name = row[0] ?? ''
    const create = (await this.#first(`SHOW CREATE TABLE ${quoteNames(database, name)}`))[1] ?? ''
    const versioned = row[1] === 'SYSTEM VERSIONED' && this.#flavor.number >= 101_100
    const columns = parts.columns
      .filter(
        (column) => !/\bGENERATED\b|PERSISTENT/i.test(column[3] ?? '') || isDefault(column[3]),
      )
      .map(([, column, type]) => createColumn(column ?? '', type ?? ''))
    if (versioned) {
      const [start, end] = periodColumns(create)
      columns.push(createColumn(start, 'timestamp'), {
        ...createColumn(end, 'timestamp'),
        load: 'until',
      })
    }
    const head = parts.columns.find((column) => column[1] === parts.keys[0]?.[1])
    // A key on a prefix of a column does not sort the table by the column.
    const whole = parts.keys[0]?.[2] === ''
    return {
      database,
      name,
      engine: row[2] ?? '',
      create,
      columns,
      key: parts.keys.map((key) => key[1] ?? ''),
      keyHead:
        head && whole
          ? { name: head[1] ?? '', type: head[2] ?? '', charset: head[4] || undefined }
          : undefined,
      rowsGuess: Number(row[3]),
      sizeBytes: Number(row[4]),
      versioned,
      createdAt: row[5] ?? '',
    }
  }

  async #view(database: string, name: string, columns: (string | null)[][]): Promise<View> {
    const facts = { database, name, columns: columns.map((column) => column[1] ?? '') }
    try {
      const row = await this.#raw(`SHOW CREATE VIEW ${quoteNames(database, name)}`)
      const create = row[1] ?? Buffer.alloc(0)
      return { ...facts, create, charset: String(row[2]), collation: String(row[3]) }
    } catch (error) {
      // A view that does not work any more, or not in this session: the catalog still has its text.
      if (!isFault(error, 'engine')) throw error
      return this.#viewText(facts)
    }
  }

  async #viewText(facts: Pick<View, 'database' | 'name' | 'columns'>): Promise<View> {
    await this.#run('SET SESSION character_set_results = utf8mb4')
    const [definition, definer = '', security, charset, collation] = await this.#first(
      `SELECT VIEW_DEFINITION, DEFINER, SECURITY_TYPE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION
       FROM information_schema.VIEWS WHERE ${isName('TABLE_SCHEMA', facts.database)}
       AND ${isName('TABLE_NAME', facts.name)}`,
    )
    const at = (definer ?? '').lastIndexOf('@')
    const account = [definer?.slice(0, at), definer?.slice(at + 1)].map((part) =>
      quoteName(part ?? ''),
    )
    const create = `CREATE DEFINER=${account.join('@')} SQL SECURITY ${security} VIEW ${quoteNames(facts.database, facts.name)} AS ${definition}`
    return {
      ...facts,
      create: Buffer.from(create),
      charset: charset ?? 'utf8mb4',
      collation: collation ?? 'utf8mb4_general_ci',
    }
  }

  async #sequence(database: string, name: string): Promise<Sequence> {
    const at = quoteNames(database, name)
    const create = (await this.#first(`SHOW CREATE SEQUENCE ${at}`))[1] ?? ''
    const [next, cycles] = await this.#first(`SELECT next_not_cached_value, cycle_count FROM ${at}`)
    return { database, name, create, next: next ?? '1', cycles: cycles ?? '0' }
  }

  async #programs(database: string, into: Program[]): Promise<void> {
    const is = (column: string) => isName(column, database)
    const schema = 'information_schema'
    const routines = await this.#texts(
      `SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME FROM ${schema}.ROUTINES WHERE ${is('ROUTINE_SCHEMA')}
       ORDER BY FIELD(ROUTINE_TYPE, 'FUNCTION', 'PROCEDURE', 'PACKAGE', 'PACKAGE BODY'), ROUTINE_NAME`,
    )
    const triggers = await this.#texts(
      `SELECT 'trigger', TRIGGER_NAME, EVENT_OBJECT_TABLE FROM ${schema}.TRIGGERS WHERE ${is('TRIGGER_SCHEMA')}
       ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ${this.#triggerOrder()}`,
    )
    const events = await this.#texts(
      `SELECT 'event', EVENT_NAME FROM ${schema}.EVENTS WHERE ${is('EVENT_SCHEMA')} ORDER BY 2`,
    )
    for (const [kind, name, table] of [...routines, ...triggers, ...events]) {
      if (this.#flavor.family === 'mysql' && name === null) continue
      if (!this.#wants(database, table ?? name ?? '')) continue
      const program = await this.#program(database, kind as Program['kind'], name ?? '')
      into.push(table ? { ...program, table } : program)
    }
  }

  /** Several triggers of one kind on a table run in this order, which is that of their making. */
  #triggerOrder(): string {
    const many = this.#flavor.number >= (this.#flavor.family === 'mysql' ? 50_702 : 100_203)
    return many ? 'ACTION_ORDER' : 'TRIGGER_NAME'
  }

  async #program(database: string, kind: Program['kind'], name: string): Promise<Program> {
    const at = quoteNames(database, name)
    const row = await this.#raw(`SHOW CREATE ${kind.toUpperCase()} ${at}`)
    // name, sql_mode, (events: time zone,) statement, character set, collation, database collation
    const shift = kind === 'event' ? 1 : 0
    const create = row[2 + shift]
    if (!create) {
      throw new Fault('denied', `read ${kind} ${at}: the server hides its definition`, {
        hint: 'Grant SELECT on mysql.proc (MariaDB) or SHOW_ROUTINE (MySQL) to the backup user.',
      })
    }
    return {
      kind,
      database,
      name,
      create,
      sqlMode: String(row[1]),
      charset: String(row[3 + shift]),
      collation: String(row[4 + shift]),
      databaseCollation: String(row[5 + shift]),
      timeZone: kind === 'event' ? String(row[2]) : undefined,
    }
  }

  async #run(sql: string): Promise<void> {
    await this.#session.query(sql, { signal: this.#signal })
  }

  #texts(sql: string): Promise<(string | null)[][]> {
    return this.#session.texts(sql, { signal: this.#signal })
  }

  async #first(sql: string): Promise<readonly (string | null)[]> {
    const row = await this.#session.one(sql, { signal: this.#signal })
    if (!row) throw new Fault('missing', `run ${sql}: nothing came back`)
    return row
  }

  /** Text of programs stands in the character set of its maker: no conversion. */
  async #raw(sql: string): Promise<readonly (Buffer | null)[]> {
    await this.#run('SET SESSION character_set_results = NULL')
    const { rows } = await this.#session.query(sql, { signal: this.#signal })
    await this.#run('SET SESSION character_set_results = utf8mb4')
    if (!rows[0]) throw new Fault('missing', `run ${sql}: nothing came back`)
    return rows[0]
  }
}

/** The catalog's own comparison ignores case, names of databases may differ in nothing else. */
function isName(column: string, name: string): string {
  const text = quoteText(name)
  return `${column} = ${text} AND CAST(${column} AS BINARY) = CAST(${text} AS BINARY)`
}

/** MySQL says DEFAULT_GENERATED of a column whose default is an expression: its values are data. */
function isDefault(extra: string | null | undefined): boolean {
  return /DEFAULT_GENERATED/i.test(extra ?? '') && !/(VIRTUAL|STORED) GENERATED/i.test(extra ?? '')
}

function createColumn(name: string, type: string): Column {
  const quoted = quoteName(name)
  // FLOAT is printed with six digits; as DOUBLE it is printed so that it reads back as the same number.
  const select = type === 'float' ? `${quoted} * 1e0` : quoted
  return { name, load: loadOf(type), select }
}

/** How values go into a column of this data type. */
export function loadOf(type: string): ColumnLoad {
  return textTypes.has(type) ? 'text' : type === 'enum' ? 'enum' : 'plain'
}

/** From when and until when a row held: hidden columns unless the table names them. */
function periodColumns(create: string): readonly [start: string, end: string] {
  const match = /PERIOD FOR SYSTEM_TIME \(`((?:[^`]|``)+)`, ?`((?:[^`]|``)+)`\)/i.exec(create)
  const [, start = 'row_start', end = 'row_end'] = match ?? []
  return [start.replaceAll('``', '`'), end.replaceAll('``', '`')]
}

function group(rows: (string | null)[][]): Map<string, (string | null)[][]> {
  const groups = new Map<string, (string | null)[][]>()
  for (const row of rows) {
    const name = row[0] ?? ''
    const list = groups.get(name)
    if (list) list.push(row)
    else groups.set(name, [row])
  }
  return groups
}

/** The statement that reads a table's rows, in the order of its storage. */
export function selectRows(table: Table, condition: string | undefined): string {
  const list = table.columns.map((column) => column.select).join(',')
  const from = quoteNames(table.database, table.name)
  const when = table.versioned ? ' FOR SYSTEM_TIME ALL' : ''
  const inOrder = table.key.length > 0 && isTransactional(table.engine) && !table.versioned
  const index = inOrder ? ' FORCE INDEX (PRIMARY)' : ''
  const where = condition === undefined ? '' : ` WHERE ${condition}`
  const order = inOrder ? ` ORDER BY ${table.key.map(quoteName).join(',')}` : ''
  return `SELECT ${list} FROM ${from}${when}${index}${where}${order}`
}

/** The statement that takes rows in again. */
export function loadRows(
  table: Pick<Table, 'database' | 'name'>,
  columns: readonly { readonly name: string; readonly load: ColumnLoad }[],
  file: string,
): string {
  const list = columns.map((column, index) =>
    loadedValue(column.load, '') === undefined ? quoteName(column.name) : `@c${index}`,
  )
  const sets = columns.flatMap((column, index) => {
    const value = loadedValue(column.load, `@c${index}`)
    return value === undefined ? [] : [`${quoteName(column.name)} = ${value}`]
  })
  const set = sets.length > 0 ? ` SET ${sets.join(', ')}` : ''
  return (
    `LOAD DATA LOCAL INFILE ${quotePlain(file)} INTO TABLE ${quoteNames(table.database, table.name)} ` +
    `CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ` +
    `(${list.join(',')})${set}`
  )
}
