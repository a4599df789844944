import { Fault } from '#base/faults'
import { Pool } from '#base/pool'
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
import type { TableShape } from '#change/schema'
import type { Log } from '#base/log'
import type { Flavor } from '../flavor.ts'
import type { Endpoint } from '../protocol/endpoint.ts'
import type { Row } from '../protocol/packets.ts'
import { Session } from '../protocol/session.ts'
import { serverErrorNumber } from '../protocol/server-error.ts'
import { quoteName, quoteNames, quotePlain, quoteText } from '../sql.ts'
import { columnForms, digestSql, selectSql, sizeSql, summandSql } from './forms.ts'
import { applyEdits, editSql } from './repair.ts'
import { keysSql, orderedSql, rangeSql } from './where.ts'

type Options = { readonly signal: AbortSignal }
type Server = { readonly endpoint: Endpoint; readonly flavor: Flavor }
const endingMaxMs = 5000
const unknownThread = 1094

/** Compares rows by digests that the server computes. */
export class MysqlDigest implements DigestSource {
  readonly #server: Server

  constructor(server: Server) {
    this.#server = server
  }

  async openDigest({ parallel, log, signal }: OpenDigest): Promise<Digester> {
    await using stack = new AsyncDisposableStack()
    const pool = stack.use(
      new Pool<Session>({
        size: parallel,
        open: (own) => openReader(this.#server.endpoint, own),
        isAlive: (session) => session.alive,
        close: (session) => session[Symbol.asyncDispose](),
      }),
    )
    // Who may not log in is told now.
    pool.giveBack(await pool.borrow(signal))
    stack.move()
    return new MysqlDigester(this.#server, pool, log)
  }
}

/** Digests are in UTC and without any mode, columns in their own bytes. */
const settings = [
  'SET NAMES utf8mb4',
  'SET SESSION character_set_results = NULL',
  "SET SESSION time_zone = '+00:00'",
  "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
]

async function openSession(endpoint: Endpoint, signal: AbortSignal): Promise<Session> {
  const session = await Session.open(endpoint, { signal })
  try {
    for (const sql of settings) await session.query(sql, { signal })
  } catch (error) {
    session.destroy()
    throw error
  }
  return session
}

async function openReader(endpoint: Endpoint, signal: AbortSignal): Promise<Session> {
  const session = await openSession(endpoint, signal)
  await session.query('SET SESSION TRANSACTION READ ONLY', { signal })
  return session
}

class MysqlDigester implements Digester {
  readonly #server: Server
  readonly #log: Log
  readonly #pool: Pool<Session>
  /** Sessions that may still work on a statement that nobody waits for. */
  readonly #left = new Set<number>()
  #writer: Session | undefined

  constructor(server: Server, pool: Pool<Session>, log: Log) {
    this.#server = server
    this.#log = log
    this.#pool = pool
  }

  async describe(table: TableShape, options: Options): Promise<Description> {
    const [database = '', name = ''] = table.name
    const there = `TABLE_SCHEMA = ${quoteText(database)} AND CAST(TABLE_SCHEMA AS BINARY) = CAST(${quoteText(database)} AS BINARY)`
    const rows = await this.#ask(
      `SELECT TABLE_TYPE FROM information_schema.TABLES WHERE ${there} AND CAST(TABLE_NAME AS BINARY) = CAST(${quoteText(name)} AS BINARY)`,
      options,
    )
    const triggers = await this.#ask(
      `SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE ${there.replaceAll('TABLE_SCHEMA', 'EVENT_OBJECT_SCHEMA')} AND CAST(EVENT_OBJECT_TABLE AS BINARY) = CAST(${quoteText(name)} AS BINARY)`,
      options,
    )
    const history = rows[0]?.[0]?.toString() === 'SYSTEM VERSIONED'
    const fires = triggers.map((row) => row[0]?.toString() ?? '').join(', ')
    const unrepairable = history
      ? 'it keeps its history, which cannot be written row by row'
      : fires && `its triggers (${fires}) would fire for every row that is repaired`
    return {
      columns: table.columns.map((column) => columnForms(column, this.#server.flavor.family)),
      history,
      unrepairable: unrepairable || undefined,
    }
  }

  async border(
    table: DigestTable,
    range: KeyRange,
    options: Options & { readonly rows: number },
  ): Promise<Key | undefined> {
    const names = keyColumns(table)
      .map((column) => quoteName(column.name))
      .join(', ')
    const [row] = await this.#ask(
      `SELECT ${keySelect(table)} FROM ${fromSql(table)}${where(rangeSql(table, range))} ORDER BY ${names} LIMIT 1 OFFSET ${options.rows}`,
      options,
    )
    return row && toKey(row)
  }

  async edges(
    table: DigestTable,
    options: Options,
  ): Promise<{ readonly first: bigint; readonly last: bigint } | undefined> {
    const [head] = keyColumns(table)
    if (head?.form !== 'integer') return undefined
    const name = quoteName(head.name)
    const [row] = await this.#ask(
      `SELECT MIN(${name}), MAX(${name}) FROM ${fromSql(table)}`,
      options,
    )
    const [first, last] = row ?? []
    return first && last
      ? { first: BigInt(first.toString()), last: BigInt(last.toString()) }
      : undefined
  }

  async sum(table: DigestTable, range: KeyRange, options: Options): Promise<RangeSum> {
    // Each row is digested once: a second use of the digest would be a second digest, or a temporary table.
    const [row] = await this.#ask(
      `SELECT COUNT(*), SUM(${summandSql(table.columns)}), ${orderedSql(table, range)} FROM ${fromSql(table)}${where(rangeSql(table, range))}`,
      options,
    )
    const [count, sum, ordered] = (row ?? []).map((cell) => cell?.toString() ?? null)
    return { rows: BigInt(count ?? 0), sum: hex64(sum), ordered: ordered === '1' }
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
      `SELECT ${sizeSql(table.columns)}, ${keySelect(table)} FROM ${fromSql(table)}${where(keysSql(table, keys))}`,
      options,
    )
    return rows.map(([size, ...key]) => ({ sizeBytes: Number(size?.toString()), key: toKey(key) }))
  }

  async #digests(
    table: DigestTable,
    condition: string | undefined,
    options: Options,
  ): Promise<readonly KeyDigest[]> {
    const rows = await this.#ask(
      `SELECT ${digestSql(table.columns)}, ${keySelect(table)} FROM ${fromSql(table)}${where(condition)}`,
      options,
    )
    return rows.map(([digest, ...key]) => {
      if (!digest) throw tooLarge(table)
      return { digest: digest.toString(), key: toKey(key) }
    })
  }

  async spread(
    table: DigestTable,
    spread: Spread,
    options: Options,
  ): Promise<readonly BucketSum[]> {
    const sum = `SUM(${summandSql(table.columns)})`
    const rows = await this.#ask(
      `SELECT ${bucketSql(table, spread.bits)} AS b, COUNT(*), ${sum} FROM ${fromSql(table)}${where(spreadSql(table, spread))} GROUP BY b`,
      options,
    )
    return rows.map((row) => {
      const [bucket, count, total] = row.map((cell) => cell?.toString() ?? null)
      if (bucket === null || total === null) throw tooLarge(table)
      return { bucket: Number(bucket), rows: BigInt(count ?? 0), sum: hex64(total) }
    })
  }

  async tally(
    table: DigestTable,
    spread: Spread,
    options: Options,
  ): Promise<readonly DigestCount[]> {
    return this.#counts(table, spreadSql(table, spread), options)
  }

  async count(
    table: DigestTable,
    digests: readonly string[],
    options: Options,
  ): Promise<readonly DigestCount[]> {
    if (digests.length === 0) return []
    return this.#counts(table, digestsSql(table, digests), options)
  }

  async #counts(
    table: DigestTable,
    condition: string | undefined,
    options: Options,
  ): Promise<readonly DigestCount[]> {
    const rows = await this.#ask(
      `SELECT ${digestSql(table.columns)} AS h, COUNT(*) FROM ${fromSql(table)}${where(condition)} GROUP BY h`,
      options,
    )
    return rows.map(([digest, count]) => ({
      digest: digest?.toString() ?? '',
      rows: Number(count?.toString()),
    }))
  }

  async rows(table: DigestTable, which: Rows, options: Options): Promise<readonly FullRow[]> {
    const wanted = which.kind === 'keys' ? which.keys : which.digests
    if (wanted.length === 0) return []
    const condition =
      which.kind === 'keys' ? keysSql(table, which.keys) : digestsSql(table, which.digests)
    const cells = table.columns.map((column) => `, ${selectSql(column)}`).join('')
    const rows = await this.#ask(
      `SELECT ${digestSql(table.columns)}${cells} FROM ${fromSql(table)}${where(condition)}`,
      options,
    )
    const found = new Map<string, FullRow>()
    for (const [digest, ...own] of rows) {
      const text = digest?.toString() ?? ''
      const key = which.kind === 'keys' ? String(found.size) : text
      found.set(key, { digest: text, cells: own.map((cell) => cell && Buffer.from(cell)) })
    }
    return [...found.values()]
  }

  statements(table: DigestTable, edit: Edit): readonly string[] {
    return editSql(table, edit)
  }

  async apply(
    table: DigestTable,
    edits: readonly Edit[],
    options: Options & { readonly replace: boolean },
  ): Promise<readonly number[]> {
    const { signal } = options
    if (!this.#writer?.alive) {
      this.#writer = await openSession(this.#server.endpoint, signal)
      // Rows of other tables are compared, and repaired, on their own account.
      await this.#writer.query('SET SESSION foreign_key_checks = 0', { signal })
    }
    return applyEdits(this.#writer, table, edits, options)
  }

  async #ask(sql: string, options: Options): Promise<readonly Row[]> {
    const session = await this.#pool.borrow(options.signal)
    try {
      const { rows } = await session.query(sql, options)
      return rows
    } catch (error) {
      if (options.signal.aborted) this.#left.add(session.id)
      throw error
    } finally {
      this.#pool.giveBack(session)
    }
  }

  /** The server notices only at the end of a statement that who asked has gone. */
  async #endLeft(): Promise<void> {
    const signal = AbortSignal.timeout(endingMaxMs)
    await using session = await Session.open(this.#server.endpoint, { signal })
    for (const id of this.#left) {
      await session.query(`KILL ${id}`, { signal }).catch((error: unknown) => {
        // It ended by itself.
        if (serverErrorNumber(error) !== unknownThread) throw error
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#left.size > 0) {
      await this.#endLeft().catch((error: unknown) => {
        // The server is gone, or refuses: its statements end by themselves.
        this.#log.debug('statements were left to the server', { said: String(error) })
      })
    }
    await this.#writer?.[Symbol.asyncDispose]()
    await this.#pool[Symbol.asyncDispose]()
  }
}

function fromSql(table: DigestTable): string {
  const [database = '', name = ''] = table.name
  const history = table.history ? ' FOR SYSTEM_TIME ALL' : ''
  const index = table.index === undefined ? '' : ` FORCE INDEX (${quoteName(table.index)})`
  return `${quoteNames(database, name)}${history}${index}`
}

function where(condition: string | undefined): string {
  return condition === undefined ? '' : ` WHERE ${condition}`
}

function keySelect(table: DigestTable): string {
  return keyColumns(table).map(selectSql).join(', ')
}

function toKey(row: Row): Key {
  return row.map((cell) => Buffer.from(cell ?? Buffer.alloc(0)))
}

/** What spreads the rows of a table: see `Spread`. */
function spreaderSql(table: DigestTable): string {
  return digestSql(table.key.length > 0 ? keyColumns(table) : table.columns)
}

const bucketBits = 32

function bucketSql(table: DigestTable, bits: number): string {
  return `(CONV(LEFT(${spreaderSql(table)}, 8), 16, 10) >> ${bucketBits - bits})`
}

function spreadSql(table: DigestTable, { bits, buckets, sample }: Spread): string | undefined {
  const parts = [
    ...(buckets === undefined ? [] : [`${bucketSql(table, bits)} IN (${buckets.join(', ')})`]),
    ...(sample === undefined
      ? []
      : [
          `CONV(LEFT(SHA2(CONCAT(${quotePlain(sample.seed)}, ${spreaderSql(table)}), 256), 8), 16, 10) + 0 < ${Math.round(sample.share * 2 ** bucketBits)}`,
        ]),
  ]
  return parts.length === 0 ? undefined : parts.join(' AND ')
}

function digestsSql(table: DigestTable, digests: readonly string[]): string {
  return `${digestSql(table.columns)} IN (${digests.map((digest) => `'${digest}'`).join(', ')})`
}

function hex64(text: string | null | undefined): string {
  return BigInt.asUintN(64, BigInt(text ?? 0))
    .toString(16)
    .padStart(16, '0')
}

function tooLarge(table: DigestTable): Fault {
  const name = table.name.join('.')
  return new Fault('engine', `digest rows of ${name}: one is larger than max_allowed_packet`, {
    hint: 'Raise max_allowed_packet on both servers.',
  })
}
