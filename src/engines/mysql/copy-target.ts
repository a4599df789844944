import { Fault } from '#base/faults'
import { Pool } from '#base/pool'
import type { Chunk, CopyWriter, Encoding, LoadedChunk, OpenCopy, RowBlock } from '#change/copy'
import type { TableShape } from '#change/schema'
import { isTransactional, loadRows, loadOf } from './catalog.ts'
import { complain, type LoadTable } from './complain.ts'
import {
  beginClear,
  checkUnmarked,
  closeNotes,
  countChunk,
  endClear,
  forgetLink,
  markChunk,
  openNotes,
  readChunks,
} from './copy-marks.ts'
import { parseRange } from './copy-plan.ts'
import { insertRows } from './insert.ts'
import { openLoader } from './load.ts'
import type { Source } from './base.ts'
import type { Session } from './protocol/session.ts'
import { keepHistory } from './script.ts'
import { quoteNames, quoteText } from './sql.ts'
import { TargetSettings } from './target-settings.ts'

const sessionsMax = 64

/** What of a table on the target decides how rows go in. */
type Place = LoadTable & { readonly transactional: boolean; readonly versioned: boolean }

/** Takes the rows of a copy into a server. */
export async function openMysqlCopy({ endpoint }: Source, options: OpenCopy): Promise<CopyWriter> {
  const { signal, log } = options
  await using stack = new AsyncDisposableStack()
  const control = await openLoader({ endpoint, unlogged: false, signal })
  stack.defer(async () => {
    const late = AbortSignal.timeout(10_000)
    if (control.alive) await closeNotes(control, { signal: late })
    await control[Symbol.asyncDispose]()
  })
  await openNotes(control, { signal })
  const { clearing } = await readChunks(control, options.link, { signal })
  stack.use(await TargetSettings.openNoted(endpoint, log, signal))
  const row = await control.one('SELECT @@global.local_infile', { signal })
  const canLocal = row?.[0] === '1'
  if (!canLocal) {
    log.warn('the target has local_infile off: rows go in by INSERT, which is slower')
  }
  const pool = stack.use(
    new Pool<Session>({
      size: Math.min(sessionsMax, options.parallel),
      open: (inner) => openLoader({ endpoint, unlogged: false, signal: inner }),
      isAlive: (session) => session.alive,
      close: (session) => session[Symbol.asyncDispose](),
    }),
  )
  return new MysqlWriter({ options, control, pool, canLocal, clearing, kept: stack.move() })
}

type Parts = {
  readonly options: OpenCopy
  readonly control: Session
  readonly pool: Pool<Session>
  readonly canLocal: boolean
  readonly clearing: readonly number[]
  readonly kept: AsyncDisposableStack
}

/** A chunk that is a whole table. */
type Solid = {
  readonly mark: LoadedChunk
  readonly rows: AsyncIterable<RowBlock>
  readonly chunk: Chunk
}

class MysqlWriter implements CopyWriter {
  readonly #parts: Parts
  readonly #places = new Map<number, Promise<Place>>()
  /** Tables whose emptying was begun and not ended when a link was killed. */
  readonly #clearing: Set<number>

  constructor(parts: Parts) {
    this.#parts = parts
    this.#clearing = new Set(parts.clearing)
  }

  encodings(): readonly Encoding[] {
    return ['mysql/text-row']
  }

  async loaded(options: { readonly signal: AbortSignal }): Promise<readonly LoadedChunk[]> {
    const { loaded } = await readChunks(this.#parts.control, this.#parts.options.link, options)
    return loaded
  }

  async load(
    table: TableShape,
    chunk: Chunk,
    rows: AsyncIterable<RowBlock>,
    options: { readonly encoding: Encoding; readonly signal: AbortSignal },
  ): Promise<bigint> {
    const { signal } = options
    const place = await this.#place(table, chunk.table, signal)
    return this.#parts.pool.with(signal, async (session) => {
      try {
        return await this.#load(session, place, chunk, rows, signal)
      } catch (error) {
        // Whatever there is of the transaction goes with its session.
        session.destroy()
        throw error
      }
    })
  }

  async #load(
    session: Session,
    place: Place,
    chunk: Chunk,
    rows: AsyncIterable<RowBlock>,
    signal: AbortSignal,
  ): Promise<bigint> {
    if (place.versioned) await session.query(keepHistory, { signal })
    const { link, run } = this.#parts.options
    const mark = { table: chunk.table, index: chunk.index, run, rows: 0n }
    if (!place.transactional) return this.#loadSolid(session, place, { mark, rows, chunk }, signal)
    await session.query('START TRANSACTION', { signal })
    await markChunk(session, link, mark, { signal })
    const count = await this.#putCounted(session, place, rows, signal)
    await countChunk(session, link, { ...mark, rows: count }, { signal })
    await session.query('COMMIT', { signal })
    return count
  }

  /** No transaction holds these: what a killed link left is taken away first, and the mark follows the rows. */
  async #loadSolid(
    session: Session,
    place: Place,
    { mark, rows, chunk }: Solid,
    signal: AbortSignal,
  ): Promise<bigint> {
    const { link } = this.#parts.options
    const at = quoteNames(place.database, place.name)
    const { from, to } = parseRange(chunk.range)
    if (from !== undefined || to !== undefined) {
      throw new Fault('refused', `copy into ${at}: its engine keeps no transactions`, {
        hint: `Run: ALTER TABLE ${at} ENGINE = InnoDB`,
      })
    }
    await checkUnmarked(session, link, mark, { signal })
    await session.query(`TRUNCATE TABLE ${at}`, { signal })
    const count = await this.#putCounted(session, place, rows, signal)
    await markChunk(session, link, { ...mark, rows: count }, { signal })
    return count
  }

  async #putCounted(
    session: Session,
    place: Place,
    rows: AsyncIterable<RowBlock>,
    signal: AbortSignal,
  ): Promise<bigint> {
    const counted = { rows: 0 }
    const affected = await this.#put(session, place, bytesOf(rows, counted), signal)
    if (affected === counted.rows) return BigInt(affected)
    const at = quoteNames(place.database, place.name)
    throw new Fault('different', `copy ${at}: ${affected} of ${counted.rows} rows were taken`, {
      hint: 'The others were refused as duplicates: was the table empty, and are its keys the same?',
    })
  }

  async #put(
    session: Session,
    place: Place,
    content: AsyncIterable<Buffer>,
    signal: AbortSignal,
  ): Promise<number> {
    if (!this.#parts.canLocal) {
      return (await insertRows(session, place, content, signal)).affectedRows
    }
    const done = await session.load(loadRows(place, place.columns, 'rows'), content, { signal })
    if (done.warnings > 0) await complain(session, place, done.warnings, signal)
    return done.affectedRows
  }

  /** How a table's rows go in, asked once; a table that was being emptied is emptied first. */
  #place(table: TableShape, index: number, signal: AbortSignal): Promise<Place> {
    const known = this.#places.get(index)
    if (known) return known
    const place = this.#prepare(table, index, signal)
    this.#places.set(index, place)
    place.catch(() => this.#places.delete(index))
    return place
  }

  async #prepare(table: TableShape, index: number, signal: AbortSignal): Promise<Place> {
    const { control } = this.#parts
    if (this.#clearing.has(index)) await this.#empty(table, index, signal)
    return readPlace(control, table, signal)
  }

  async clear(
    table: TableShape,
    options: { readonly index: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const { control } = this.#parts
    const { index, signal } = options
    await beginClear(control, this.#parts.options.link, index, { signal })
    await this.#empty(table, index, signal)
  }

  async #empty(table: TableShape, index: number, signal: AbortSignal): Promise<void> {
    const { control } = this.#parts
    const [database = '', name = ''] = table.target
    await control.query(`TRUNCATE TABLE ${quoteNames(database, name)}`, { signal })
    await endClear(control, this.#parts.options.link, index, { signal })
    this.#clearing.delete(index)
  }

  async finish(
    tables: readonly TableShape[],
    options: { readonly signal: AbortSignal },
  ): Promise<void> {
    const { control } = this.#parts
    for (const { target } of tables) {
      const [database = '', name = ''] = target
      await control.query(`ANALYZE TABLE ${quoteNames(database, name)}`, options)
    }
    await forgetLink(control, this.#parts.options.link, options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.kept.disposeAsync()
  }
}

async function readPlace(session: Session, table: TableShape, signal: AbortSignal): Promise<Place> {
  const [database = '', name = ''] = table.target
  const where = `TABLE_SCHEMA = ${quoteText(database)} AND TABLE_NAME = ${quoteText(name)}`
  const facts = await session.one(
    `SELECT COALESCE(ENGINE, ''), TABLE_TYPE FROM information_schema.TABLES WHERE ${where}`,
    { signal },
  )
  if (!facts)
    throw new Fault('missing', `copy ${table.name.join('.')}: the target has no such table`)
  const rows = await session.texts(
    `SELECT COLUMN_NAME, LOWER(DATA_TYPE) FROM information_schema.COLUMNS WHERE ${where}`,
    { signal },
  )
  const types = new Map(rows.map(([column, type]) => [column ?? '', type ?? '']))
  const versioned = facts[1] === 'SYSTEM VERSIONED'
  const end = versioned ? await readPeriodEnd(session, where, signal) : undefined
  const columns = table.columns
    .filter((column) => !column.generated)
    .map(({ name: column }) => ({
      name: column,
      load: column === end ? 'until' : loadOf(types.get(column) ?? ''),
    }))
  return {
    database,
    name,
    columns,
    transactional: isTransactional(facts[0] ?? ''),
    versioned,
  }
}

/** The column that says until when a row held; hidden unless the table names it. */
async function readPeriodEnd(
  session: Session,
  where: string,
  signal: AbortSignal,
): Promise<string> {
  const row = await session.one(
    `SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE ${where} AND GENERATION_EXPRESSION = 'ROW END'`,
    { signal },
  )
  return row?.[0] ?? 'row_end'
}

/** The socket may keep what it is given for longer than a block lasts. */
async function* bytesOf(
  rows: AsyncIterable<RowBlock>,
  counted: { rows: number },
): AsyncGenerator<Buffer, void, void> {
  for await (const block of rows) {
    counted.rows += block.rows
    if (block.bytes.length > 0) yield Buffer.from(block.bytes)
  }
}
