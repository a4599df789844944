import {
  type BucketSum,
  type Description,
  type DigestCount,
  type Digester,
  type DigestSource,
  type DigestTable,
  type Edit,
  type FullRow,
  type Key,
  keyColumns,
  type KeyDigest,
  type KeyRange,
  type OpenDigest,
  type RangeSum,
  type Rows,
  type Spread,
} from '#change/digest'
import { isFault } from '#base/faults'
import { Pool } from '#base/pool'
import type { TableShape } from '#change/schema'
import { type Address, openSession, type Session } from '../connection.ts'
import { isLargeObjects, quoteName, quotePath, quoteText, settingsSql } from '../rows-sql.ts'
import { cellSql, columnForms, digestSql, type Encoding, seededSql, sizeSql } from './forms.ts'
import { applyEdits, editSql } from './repair.ts'
import { keysSql, orderedSql, rangeSql } from './where.ts'

type Options = { readonly signal: AbortSignal }
type Row = Record<string, string | null>

/** Compares rows by digests that the server computes. */
export class PostgresDigest implements DigestSource {
  readonly #address: Address

  constructor(address: Address) {
    this.#address = address
  }

  async openDigest({ parallel, signal }: OpenDigest): Promise<Digester> {
    const pool = new Pool<Session>({
      size: parallel,
      open: (own) => openReader(this.#address, own),
      isAlive: (session) => session.alive,
      close: (session) => session[Symbol.asyncDispose](),
    })
    try {
      const [row] = await pool.with(signal, (session) =>
        session.query("select current_setting('server_encoding') as encoding", { signal }),
      )
      const encoding = row?.['encoding'] ?? 'UTF8'
      return new PostgresDigester(this.#address, pool, encodings[encoding] ?? 'converted')
    } catch (error) {
      await pool[Symbol.asyncDispose]()
      throw error
    }
  }
}

/** What the text of values depends on. */
const settings = [
  ['DateStyle', 'ISO, MDY'],
  ['IntervalStyle', 'postgres'],
  ['TimeZone', 'UTC'],
  ['bytea_output', 'hex'],
  ['xmloption', 'content'],
  ['lc_monetary', 'C'],
  ['extra_float_digits', '3'],
  // One expression for each row: what compiling it costs comes back only in long scans.
  ['jit', 'off'],
  // A statement ends soon after who asked has gone.
  ['client_connection_check_interval', '2s'],
] as const

async function openPlain(address: Address, signal: AbortSignal): Promise<Session> {
  const session = await openSession(address, { signal })
  try {
    const named = settings.map(([name, value]) => [name.toLowerCase(), value] as const)
    await session.query(settingsSql(named), { signal, doing: 'set up a session' })
    return session
  } catch (error) {
    await session[Symbol.asyncDispose]()
    throw error
  }
}

async function openReader(address: Address, signal: AbortSignal): Promise<Session> {
  const session = await openPlain(address, signal)
  await session.query('set default_transaction_read_only = on', { signal })
  return session
}

/** What a digest adds to the sum of its rows: its first 64 bits. */
const summand = `('x' || pg_catalog.left(h, 16))::bit(64)::bigint`
const encodings: Readonly<Record<string, Encoding>> = { UTF8: 'server', SQL_ASCII: 'bytes' }
/** Keeps an expression from being computed once for each use. */
const rowLimit = 'offset 0'

class PostgresDigester implements Digester {
  readonly #address: Address
  readonly #pool: Pool<Session>
  readonly #encoding: Encoding
  #writer: Session | undefined

  constructor(address: Address, pool: Pool<Session>, encoding: Encoding) {
    this.#address = address
    this.#pool = pool
    this.#encoding = encoding
  }

  async describe(table: TableShape, options: Options): Promise<Description> {
    const columns = table.columns.map((column) => columnForms(column))
    const large = 'large objects are written by functions of their own'
    if (isLargeObjects(table.name)) return { columns, history: false, unrepairable: large }
    const [schema = '', name = ''] = table.name
    const loose = await this.#ask(
      `select a.attname from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_collation o on o.oid = a.attcollation
       where n.nspname = ${quoteText(schema)} and c.relname = ${quoteText(name)} and not o.collisdeterministic`,
      options,
    )
    const unequal = new Set(loose.map((row) => row['attname']))
    return {
      // What such a collation takes for equal differs from server to server.
      columns: columns.map((one, at) =>
        unequal.has(table.columns[at]?.name ?? '') ? { ...one, order: undefined } : one,
      ),
      history: false,
      unrepairable: await this.#firing(schema, name, options),
    }
  }

  /** Triggers fire for what is repaired, unless the user may say that he is a replica. */
  async #firing(schema: string, name: string, options: Options): Promise<string | undefined> {
    const rows = await this.#ask(
      `select t.tgname, t.tgenabled from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where n.nspname = ${quoteText(schema)} and c.relname = ${quoteText(name)} and not t.tgisinternal and t.tgenabled <> 'D'
         and (t.tgenabled in ('A', 'R') or not (select rolsuper from pg_catalog.pg_roles where rolname = current_user))`,
      options,
    )
    if (rows.length === 0) return undefined
    const names = rows.map((row) => row['tgname']).join(', ')
    return `its triggers (${names}) would fire for every row that is repaired`
  }

  async border(
    table: DigestTable,
    range: KeyRange,
    options: Options & { readonly rows: number },
  ): Promise<Key | undefined> {
    const names = keyColumns(table).map((column) => quoteName(column.name))
    const [row] = await this.#ask(
      `select ${this.#keySelect(table)} from ${fromSql(table)}${where(rangeSql(table, range))} order by ${names.join(', ')} limit 1 offset ${options.rows}`,
      options,
    )
    return row && toKey(table, row)
  }

  async edges(
    table: DigestTable,
    options: Options,
  ): Promise<{ readonly first: bigint; readonly last: bigint } | undefined> {
    const [head] = keyColumns(table)
    if (head?.form !== 'integer') return undefined
    const name = quoteName(head.name)
    const [row] = await this.#ask(
      `select min(${name})::text as first, max(${name})::text as last from ${fromSql(table)}`,
      options,
    )
    const { first, last } = row ?? {}
    return first && last ? { first: BigInt(first), last: BigInt(last) } : undefined
  }

  async sum(table: DigestTable, range: KeyRange, options: Options): Promise<RangeSum> {
    const rows = `select ${this.#digest(table)} as h from ${fromSql(table)}${where(rangeSql(table, range))} ${rowLimit}`
    const [row] = await this.#ask(
      `select count(*) as rows, sum(${summand}) as sum, ${orderedSql(table, range)} as ordered from (${rows}) d`,
      options,
    )
    return {
      rows: BigInt(row?.['rows'] ?? 0),
      sum: hex64(row?.['sum']),
      ordered: row?.['ordered'] === 't',
    }
  }

  async list(table: DigestTable, range: KeyRange, options: Options): Promise<readonly KeyDigest[]> {
    return this.#digests(table, rangeSql(table, range), options)
  }

  async look(
    table: DigestTable,
    keys: readonly Key[],
    options: Options,
  ): Promise<readonly KeyDigest[]> {
    if (keys.length === 0) return []
    return this.#digests(table, keysSql(table, keys), options)
  }

  async sizes(
    table: DigestTable,
    keys: readonly Key[],
    options: Options,
  ): Promise<readonly { readonly key: Key; readonly sizeBytes: number }[]> {
    if (keys.length === 0) return []
    const rows = await this.#ask(
      `select ${sizeSql(table.columns)} as size, ${this.#keySelect(table)} from ${fromSql(table)} where ${keysSql(table, keys)}`,
      options,
    )
    return rows.map((row) => ({ sizeBytes: Number(row['size']), key: toKey(table, row) }))
  }

  async #digests(
    table: DigestTable,
    condition: string | undefined,
    options: Options,
  ): Promise<readonly KeyDigest[]> {
    const rows = await this.#ask(
      `select ${this.#digest(table)} as digest, ${this.#keySelect(table)} from ${fromSql(table)}${where(condition)}`,
      options,
    )
    return rows.map((row) => ({ digest: row['digest'] ?? '', key: toKey(table, row) }))
  }

  async spread(
    table: DigestTable,
    spread: Spread,
    options: Options,
  ): Promise<readonly BucketSum[]> {
    const rows = await this.#ask(
      `select ${this.#bucket(spread.bits)} as bucket, count(*) as rows, sum(${summand}) as sum
       from (${this.#spreadRows(table)}) d${where(this.#spreadCondition(spread))} group by 1`,
      options,
    )
    return rows.map((row) => ({
      bucket: Number(row['bucket']),
      rows: BigInt(row['rows'] ?? 0),
      sum: hex64(row['sum']),
    }))
  }

  async tally(
    table: DigestTable,
    spread: Spread,
    options: Options,
  ): Promise<readonly DigestCount[]> {
    const rows = await this.#ask(
      `select h as digest, count(*) as rows from (${this.#spreadRows(table)}) d${where(this.#spreadCondition(spread))} group by 1`,
      options,
    )
    return rows.map((row) => ({ digest: row['digest'] ?? '', rows: Number(row['rows']) }))
  }

  async count(
    table: DigestTable,
    digests: readonly string[],
    options: Options,
  ): Promise<readonly DigestCount[]> {
    if (digests.length === 0) return []
    const rows = await this.#ask(
      `select h as digest, count(*) as rows from (${this.#spreadRows(table)}) d where h in (${listOf(digests)}) group by 1`,
      options,
    )
    return rows.map((row) => ({ digest: row['digest'] ?? '', rows: Number(row['rows']) }))
  }

  async rows(table: DigestTable, which: Rows, options: Options): Promise<readonly FullRow[]> {
    const wanted = which.kind === 'keys' ? which.keys : which.digests
    if (wanted.length === 0) return []
    const condition =
      which.kind === 'keys'
        ? keysSql(table, which.keys)
        : `${this.#digest(table)} in (${listOf(which.digests)})`
    const only = which.kind === 'keys' ? '' : `distinct on (${this.#digest(table)}) `
    const cells = table.columns.map((column, at) => `, ${cellSql(column)} as c${at}`).join('')
    const rows = await this.#ask(
      `select ${only}${this.#digest(table)} as digest${cells} from ${fromSql(table)} where ${condition}`,
      options,
    )
    return rows.map((row) => ({
      digest: row['digest'] ?? '',
      cells: table.columns.map((_column, at) => {
        const text = row[`c${at}`]
        return text === null || text === undefined ? null : Buffer.from(text)
      }),
    }))
  }

  statements(table: DigestTable, edit: Edit): readonly string[] {
    return editSql(table, edit, this.#encoding)
  }

  async apply(
    table: DigestTable,
    edits: readonly Edit[],
    options: Options & { readonly replace: boolean },
  ): Promise<readonly number[]> {
    const session = await this.#openWriter(options.signal)
    return applyEdits(session, table, edits, { ...options, encoding: this.#encoding })
  }

  async #openWriter(signal: AbortSignal): Promise<Session> {
    if (this.#writer?.alive) return this.#writer
    this.#writer = await openPlain(this.#address, signal)
    try {
      await this.#writer.query('set session_replication_role = replica', { signal })
    } catch (error) {
      // Without that right foreign keys are followed, and tables with triggers are not repaired at all.
      if (!isFault(error, 'denied', 'engine')) throw error
    }
    return this.#writer
  }

  #digest(table: DigestTable): string {
    return digestSql(table.columns, this.#encoding)
  }

  /** Each row's digest, and what spreads it. */
  #spreadRows(table: DigestTable): string {
    const key = table.key.length > 0 ? digestSql(keyColumns(table), this.#encoding) : undefined
    const both = key === undefined ? 'h as k, h' : 'k, h'
    return `select ${both} from (select ${key === undefined ? '' : `${key} as k, `}${this.#digest(table)} as h from ${fromSql(table)} ${rowLimit}) r`
  }

  #bucket(bits: number): string {
    return `(('x' || pg_catalog.left(k, 8))::bit(32)::bigint & 4294967295) >> ${32 - bits}`
  }

  #spreadCondition({ bits, buckets, sample }: Spread): string | undefined {
    const chosen =
      sample &&
      `(('x' || pg_catalog.left(${seededSql(sample.seed, 'k')}, 8))::bit(32)::bigint & 4294967295) < ${Math.round(sample.share * 2 ** 32)}`
    const parts = [
      ...(buckets === undefined ? [] : [`(${this.#bucket(bits)}) in (${buckets.join(', ')})`]),
      ...(chosen === undefined ? [] : [chosen]),
    ]
    return parts.length === 0 ? undefined : parts.join(' and ')
  }

  #keySelect(table: DigestTable): string {
    return keyColumns(table)
      .map((column, at) => `${cellSql(column)} as k${at}`)
      .join(', ')
  }

  async #ask(sql: string, { signal }: Options): Promise<readonly Row[]> {
    return this.#pool.with(signal, (session) => session.query(sql, { signal }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]()
    await this.#writer?.[Symbol.asyncDispose]()
  }
}

function fromSql(table: DigestTable): string {
  return `only ${quotePath(table.name)}`
}

function where(condition: string | undefined): string {
  return condition === undefined ? '' : ` where ${condition}`
}

function listOf(digests: readonly string[]): string {
  return digests.map((digest) => `'${digest}'`).join(', ')
}

function toKey(table: DigestTable, row: Row): Key {
  return table.key.map((_index, at) => Buffer.from(row[`k${at}`] ?? ''))
}

function hex64(text: string | null | undefined): string {
  return BigInt.asUintN(64, BigInt(text ?? 0))
    .toString(16)
    .padStart(16, '0')
}
