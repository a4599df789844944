import type { Flavor } from '../flavor.ts'
import { fileNumber } from '../position.ts'
import type { Endpoint } from '../protocol/endpoint.ts'
import { Session } from '../protocol/session.ts'
import { readLogEnd } from '../server.ts'
import { quoteText } from '../sql.ts'
import type { CatalogColumn } from './columns.ts'
import type { CatalogTable } from './tables.ts'

type Row = readonly (string | null)[]

/** Looks tables up in the catalog of a live server, over a session that is opened again when the server closed it. */
export class CatalogLookup implements Disposable {
  readonly #endpoint: Endpoint
  readonly #flavor: Flavor
  #session: Session | undefined

  constructor(endpoint: Endpoint, flavor: Flavor) {
    this.#endpoint = endpoint
    this.#flavor = flavor
  }

  async session(signal: AbortSignal): Promise<Session> {
    if (!this.#session?.alive) this.#session = await Session.open(this.#endpoint, { signal })
    return this.#session
  }

  async read(
    database: string,
    table: string,
    signal: AbortSignal,
  ): Promise<CatalogTable | undefined> {
    const session = await this.session(signal)
    const where = `${isName('TABLE_SCHEMA', database)} AND ${isName('TABLE_NAME', table)}`
    const rows = await session.texts(
      `SELECT COLUMN_NAME, COLUMN_TYPE, LOWER(DATA_TYPE), CHARACTER_SET_NAME, CHARACTER_OCTET_LENGTH
       FROM information_schema.COLUMNS WHERE ${where} ORDER BY ORDINAL_POSITION`,
      { signal },
    )
    if (rows.length === 0) return undefined
    const keys = await session.texts(
      `SELECT INDEX_NAME, COLUMN_NAME, COALESCE(SUB_PART, ''), NULLABLE FROM information_schema.STATISTICS
       WHERE ${where} AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`,
      { signal },
    )
    const hidden = await this.#hidden(session, where, rows, signal)
    const end = await readLogEnd(session, this.#flavor, signal)
    const key = identifying(keys)
    const columns = [...rows, ...hidden].map((row) => columnOf(row, key))
    return { columns, end: { file: end ? fileNumber(end.name) : 0, offset: end?.offset ?? 0 } }
  }

  /** The times of system versioning are in the log also where the table does not name them. */
  async #hidden(
    session: Session,
    where: string,
    rows: readonly Row[],
    signal: AbortSignal,
  ): Promise<Row[]> {
    if (this.#flavor.family !== 'mariadb') return []
    const sql = `SELECT TABLE_TYPE FROM information_schema.TABLES WHERE ${where}`
    const kind = (await session.one(sql, { signal }))?.[0]
    if (kind !== 'SYSTEM VERSIONED') return []
    const named = rows.some((row) => row[0]?.toLowerCase() === 'row_start')
    if (named) return []
    return ['row_start', 'row_end'].map((name) => [name, 'timestamp(6)', 'timestamp', null, null])
  }

  [Symbol.dispose](): void {
    this.#session?.destroy()
  }
}

function columnOf(row: Row, key: ReadonlySet<string>): CatalogColumn {
  const [name, type, word, charset, octets] = row
  const text = /char|text|enum|set/.test(word ?? '')
  return {
    name: name ?? '',
    type: type ?? '',
    word: word ?? '',
    charset: charset ?? (text ? undefined : 'binary'),
    octets: octets === null || octets === undefined ? undefined : Number(octets),
    identifies: key.has(name ?? ''),
  }
}

/** The columns of the first key that names every row: the primary one, or one that no NULL can be in. */
function identifying(keys: readonly Row[]): ReadonlySet<string> {
  for (const parts of Map.groupBy(keys, (row) => row[0]).values()) {
    const whole = parts.every(
      (part) => part[1] !== null && part[2] === '' && part[3]?.toUpperCase() !== 'YES',
    )
    if (whole) return new Set(parts.map((part) => part[1] ?? ''))
  }
  return new Set()
}

function isName(column: string, name: string): string {
  const text = quoteText(name)
  return `${column} = ${text} AND CAST(${column} AS BINARY) = CAST(${text} AS BINARY)`
}
