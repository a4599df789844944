import { Fault, isFault } from '#base/faults'
import { Pool } from '#base/pool'
import type { BeginCopy, Chunk, CopyReader, Encoding, RowBlock } from '#change/copy'
import type { Position } from '#change'
import type { ObjectName, TableShape } from '#change/schema'
import type { Source } from './base.ts'
import { isTransactional, selectRows, type Table } from './catalog.ts'
import { conditionOf } from './chunks.ts'
import { parseRange, planCopy } from './copy-plan.ts'
import { readStamp } from './dump.ts'
import { beginning, fileNumber, formatPlace } from './position.ts'
import { serverErrorNumber } from './protocol/server-error.ts'
import { Session } from './protocol/session.ts'
import { RowKernel } from './row-kernel.ts'
import { RowText } from './rows.kernel.ts'
import { openSnapshot, type Snapshot, tableWaitSeconds } from './snapshot.ts'
import { quoteNames } from './sql.ts'

/** Unknown table, unknown column, table changed since the transaction began, sort aborted by such a change. */
const changedNumbers = new Set([1146, 1054, 1412, 1105, 1932])
/** The statement was ended from outside. */
const interruptedNumbers = new Set([1317, 1028])
const sessionsMax = 64
/** How long a statement that was ended may take to say so. */
const drainMaxMs = 10_000

type Held = { readonly session: Session; readonly kernel: RowKernel }

/** All rows of a live server as of one place in its log. */
export async function beginMysqlCopy(source: Source, options: BeginCopy): Promise<CopyReader> {
  const { signal, log } = options
  const parallel = Math.min(sessionsMax, Math.max(1, options.parallel))
  const { endpoint, flavor, history } = source
  await using stack = new AsyncDisposableStack()
  const meant = new Set(options.tables.map((table) => nameKey(table.name)))
  const databases = new Set(options.tables.map((table) => table.name[0]))
  const wants = (database: string, name: string | undefined) =>
    name === undefined ? databases.has(database) : meant.has(nameKey([database, name]))
  const snapshot = stack.use(await openSnapshot(endpoint, flavor, { parallel, signal, log, wants }))
  const { end } = snapshot
  const stamp = end && (await readStamp(endpoint, flavor, end.name, signal))
  const control = stack.use(await Session.open(endpoint, { signal }))
  await control.query(
    `SET SESSION sql_mode = '', lock_wait_timeout = ${tableWaitSeconds}, wait_timeout = ${7 * 24 * 3600}`,
    { signal },
  )
  const at = end
    ? formatPlace({ file: fileNumber(end.name), offset: end.offset, stamp })
    : beginning
  const position = end ? { history, at } : undefined
  const reader = new MysqlReader(source, snapshot, control, position)
  reader.checkTables(options.tables)
  const kept = stack.move()
  return Object.assign(reader, { [Symbol.asyncDispose]: () => kept.disposeAsync() })
}

class MysqlReader implements Omit<CopyReader, typeof Symbol.asyncDispose> {
  readonly position: Position | undefined
  readonly stamp: string | undefined
  readonly #source: Source
  readonly #control: Session
  readonly #tables: ReadonlyMap<string, Table>
  readonly #pool: Pool<Held>
  /** Reads what a snapshot does not cover, and keeps it from changing meanwhile. */
  readonly #frozen: Pool<Held> | undefined
  readonly #snapshot: Snapshot
  /** Those that it still has to read. */
  readonly #solid = new Set<string>()

  constructor(
    source: Source,
    snapshot: Snapshot,
    control: Session,
    position: Position | undefined,
  ) {
    this.#source = source
    this.#control = control
    this.#snapshot = snapshot
    this.position = position
    this.stamp = position && `${position.history} ${position.at}`
    this.#tables = new Map(
      snapshot.catalog.tables.map((table) => [nameKey([table.database, table.name]), table]),
    )
    this.#pool = poolOf(snapshot.sessions)
    this.#frozen = snapshot.frozen && poolOf([snapshot.frozen])
  }

  /** Refuses when what was planned is not there any more. */
  checkTables(shapes: readonly TableShape[]): void {
    for (const shape of shapes) {
      const table = this.#table(shape)
      const wanted = shape.columns.filter((column) => !column.generated).map(({ name }) => name)
      const there = table.columns.map(({ name }) => name)
      if (wanted.join('\n') !== there.join('\n')) throw changed(table)
      if (!isTransactional(table.engine)) this.#solid.add(nameKey(shape.name))
    }
  }

  encodings(): readonly Encoding[] {
    return ['mysql/text-row']
  }

  chunksByKey(shape: TableShape): boolean {
    return shape.keys.some((key) => key.identifies)
  }

  async plan(
    shape: TableShape,
    options: { readonly index: number; readonly chunkBytes: number; readonly signal: AbortSignal },
  ): Promise<readonly Chunk[]> {
    const { signal } = options
    const table = this.#table(shape)
    // A table that no transaction holds is loaded whole or not at all.
    const chunkBytes = isTransactional(table.engine) ? options.chunkBytes : Number.MAX_SAFE_INTEGER
    const pool = this.#poolOf(table)
    const held = await pool.borrow(signal)
    try {
      return await guarded(table, () =>
        planCopy(held.session, this.#source.flavor, table, { ...options, chunkBytes }),
      )
    } finally {
      await this.#giveBack(pool, table, held, signal)
    }
  }

  async *read(
    shape: TableShape,
    chunk: Chunk,
    options: { readonly encoding: Encoding; readonly signal: AbortSignal },
  ): AsyncGenerator<RowBlock, void, void> {
    const { signal } = options
    const table = this.#table(shape)
    const pool = this.#poolOf(table)
    const held = await pool.borrow(signal)
    try {
      const sql = selectRows(table, conditionOf(table, parseRange(chunk.range)))
      yield* this.#rows(table, held, sql, signal)
      await this.#checkUnchanged(table, signal)
      await this.#unfreeze(shape, signal)
    } finally {
      await this.#giveBack(pool, table, held, signal)
    }
  }

  async *#rows(
    table: Table,
    { session, kernel }: Held,
    sql: string,
    signal: AbortSignal,
  ): AsyncGenerator<RowBlock, void, void> {
    using _ = session.guard(signal)
    const text = await guarded(
      table,
      async () => new RowText(await session.beginRows(sql, { signal }), kernel),
    )
    let told = 0
    let ended = false
    let lines: Iterator<Buffer, void, void> | undefined
    try {
      while (!text.done) {
        lines = text.take(await session.raw())
        // Not by `for`, which would close it when nobody wants more, with bytes inside.
        for (let next = lines.next(); !next.done; next = lines.next()) {
          const rows = text.rows - told
          told = text.rows
          yield { bytes: next.value, rows }
        }
      }
      if (text.rows > told) yield { bytes: Buffer.alloc(0), rows: text.rows - told }
    } catch (error) {
      // The server's own word: nothing comes behind it.
      ended = true
      throw error
    } finally {
      if (!text.done && !ended && session.alive) await this.#interrupt(session, text, lines)
    }
  }

  /** Whoever takes no more rows must not cost the snapshot its session: the statement is ended, and what still comes is dropped. */
  async #interrupt(
    session: Session,
    text: RowText,
    lines: Iterator<Buffer, void, void> | undefined,
  ): Promise<void> {
    const signal = AbortSignal.timeout(drainMaxMs)
    try {
      await this.#control.query(`KILL QUERY ${session.id}`, { signal })
      using _ = session.guard(signal)
      while (lines && !lines.next().done) continue
      while (!text.done) for (const _lines of text.take(await session.raw())) continue
    } catch (error) {
      if (!interruptedNumbers.has(serverErrorNumber(error) ?? 0)) session.destroy(error)
      return
    }
    // It ended by itself: the word may still be on its way, and would end the next one.
    await session.query('DO SLEEP(0)', { signal }).catch((error: unknown) => {
      if (!isFault(error, 'timeout', 'engine')) session.destroy(error)
    })
  }

  #poolOf(table: Table): Pool<Held> {
    return isTransactional(table.engine) ? this.#pool : (this.#frozen ?? this.#pool)
  }

  /** Gives up the locks on definitions that its statements took; the view of the data stays. */
  async #giveBack(pool: Pool<Held>, table: Table, held: Held, signal: AbortSignal): Promise<void> {
    try {
      if (held.session.alive && !signal.aborted && isTransactional(table.engine))
        await held.session.query('ROLLBACK TO SAVEPOINT redoubt', { signal })
    } finally {
      pool.giveBack(held)
    }
  }

  /** Others may write again when the last table that no snapshot covers was read. */
  async #unfreeze(shape: TableShape, signal: AbortSignal): Promise<void> {
    if (!this.#solid.delete(nameKey(shape.name)) || this.#solid.size > 0) return
    await this.#snapshot.release()
    signal.throwIfAborted()
  }

  /** Where nothing keeps schema changes away, one may have put another table in this one's place. */
  async #checkUnchanged(table: Table, signal: AbortSignal): Promise<void> {
    if (this.#source.flavor.instanceLock) return
    const at = quoteNames(table.database, table.name)
    await guarded(table, async () => {
      const row = await this.#control.one(`SHOW CREATE TABLE ${at}`, { signal })
      if (withoutCounter(row?.[1] ?? '') !== withoutCounter(table.create)) throw changed(table)
    })
  }

  #table(shape: TableShape): Table {
    const table = this.#tables.get(nameKey(shape.name))
    if (table) return table
    throw new Fault('conflict', `copy ${shape.name.join('.')}: the table is gone`, {
      hint: 'Begin the link anew.',
    })
  }
}

/** Sessions of a snapshot: it ends them, and no other can take the place of one. */
function poolOf(sessions: readonly Session[]): Pool<Held> {
  return new Pool({
    size: sessions.length,
    held: sessions.map((session) => ({ session, kernel: new RowKernel() })),
    isAlive: ({ session }) => session.alive,
    close: () => undefined,
  })
}

function nameKey(name: ObjectName): string {
  return JSON.stringify(name)
}

function withoutCounter(create: string): string {
  return create.replace(/ AUTO_INCREMENT=\d+/, '')
}

async function guarded<T>(table: Table, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!changedNumbers.has(serverErrorNumber(error) ?? 0)) throw error
    throw changed(table, error)
  }
}

function changed(table: Table, cause?: unknown): Fault {
  const at = quoteNames(table.database, table.name)
  return new Fault('conflict', `copy ${at}: its definition changed meanwhile`, {
    hint: 'Begin the copy anew, at a time without schema changes.',
    cause,
  })
}
