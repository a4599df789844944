import { Fault, isFault } from '#base/faults'
import { Pool } from '#base/pool'
import { eachLimit } from '#base/tasks'
import type { Chunk, CopyWriter, Encoding, LoadedChunk, OpenCopy, RowBlock } from '#change/copy'
import type { TableShape } from '#change/schema'
import { type Address, openSession, openWire, type Session } from './connection.ts'
import { makeLargeObjects, stagedColumns, stageLargeObjects } from './large-objects.ts'
import { chunkMarks, makeMarks, removeMarks } from './marks.ts'
import { decodeServerError, fromServer } from './protocol/faults.ts'
import type { Wire } from './protocol/wire.ts'
import {
  encodingOf,
  isLargeObjects,
  quoteName,
  quotePath,
  quoteText,
  settingsSql,
  writtenColumns,
} from './rows-sql.ts'

/** Takes chunks in by COPY, each with its mark in one transaction. */
export class PostgresCopyWriter implements CopyWriter {
  readonly #link: string
  readonly #run: number
  readonly #session: Session
  readonly #pool: Pool<Wire>
  readonly #parallel: number
  /** What `client_encoding` is in a session. */
  readonly #encodings = new WeakMap<Wire, string>()

  private constructor(options: OpenCopy, session: Session, pool: Pool<Wire>) {
    this.#link = options.link
    this.#run = options.run
    this.#parallel = Math.max(1, options.parallel)
    this.#session = session
    this.#pool = pool
  }

  static async open(address: Address, options: OpenCopy): Promise<PostgresCopyWriter> {
    const { signal, log } = options
    const session = await openSession(address, { signal })
    try {
      await session.query(writerSettings, { signal })
      await makeMarks(session, signal)
      const silent = await maySilenceTriggers(session, signal)
      if (!silent) log.info('triggers of the target cannot be silenced by this role: they fire')
      const open = async (inner: AbortSignal) => {
        const wire = await openWire(address, { signal: inner })
        try {
          const doing = 'set up a session to write rows'
          await wire.query(writerSettings, inner, doing)
          if (silent) await wire.query("set session_replication_role = 'replica'", inner, doing)
          return wire
        } catch (error) {
          wire.close()
          throw error
        }
      }
      const pool = new Pool<Wire>({
        size: options.parallel,
        open,
        isAlive: (wire) => wire.alive,
        close: (wire) => wire.close(),
      })
      return new PostgresCopyWriter(options, session, pool)
    } catch (error) {
      await session[Symbol.asyncDispose]()
      throw error
    }
  }

  encodings(_table: TableShape): readonly Encoding[] {
    return ['pg/copy-binary', 'pg/copy-text']
  }

  async loaded({ signal }: { readonly signal: AbortSignal }): Promise<readonly LoadedChunk[]> {
    const rows = await this.#session.query(
      `select table_index, chunk_index, run, rows from ${chunkMarks} where link = $1 order by 1, 2`,
      { signal, values: [this.#link], doing: 'read which chunks are there' },
    )
    return rows.map((row) => ({
      table: Number(row['table_index']),
      index: Number(row['chunk_index']),
      run: Number(row['run']),
      rows: BigInt(row['rows'] ?? 0),
    }))
  }

  async load(
    table: TableShape,
    chunk: Chunk,
    rows: AsyncIterable<RowBlock>,
    options: { readonly encoding: Encoding; readonly signal: AbortSignal },
  ): Promise<bigint> {
    const { encoding, signal } = options
    return this.#pool.with(signal, async (wire) => {
      const doing = `write ${quotePath(table.target)}`
      await this.#speak(wire, encodingOf(table), signal)
      wire.sendQuery(copyIn(table, encoding))
      while ((await wire.expect(signal, doing, 'C', 'G')).type === 'C') continue
      const came = await forwardAll(wire, rows, { signal, doing })
      wire.send('c')
      // The statement may still fail at its end: what is thrown then is that, not the count.
      const done = await wire.expect(signal, doing, 'C')
      const kept = Number(/^COPY (\d+)/.exec(done.body.toString('latin1'))?.[1] ?? Number.NaN)
      await wire.finishQuery(signal, doing)
      if (kept !== came) {
        throw new Fault('different', `${doing}: ${came} rows came and ${kept} were kept`, {
          hint: 'A trigger or a rule of the target takes rows away: drop it for the time of the copy.',
        })
      }
      const large = isLargeObjects(table.name) ? `${makeLargeObjects};` : ''
      const sets = await wire.query(`${large} ${this.#mark(chunk, kept)}`, signal, doing)
      if (sets.at(-1)?.length !== 1) {
        throw new Fault('conflict', `${doing}: chunk ${chunk.index} is there already`)
      }
      await wire.query('commit', signal, doing)
      return BigInt(kept)
    })
  }

  #mark(chunk: Chunk, rows: number): string {
    return `insert into ${chunkMarks} (link, table_index, chunk_index, run, rows)
      values (${quoteText(this.#link)}, ${chunk.table}, ${chunk.index}, ${this.#run}, ${rows}) on conflict do nothing returning 1`
  }

  // The bytes of text are the source's: the server is told what they are, and converts them where it has to.
  async #speak(wire: Wire, encoding: string, signal: AbortSignal): Promise<void> {
    if (this.#encodings.get(wire) === encoding) return
    await wire.query(`set client_encoding = ${quoteText(encoding)}`, signal, 'set the encoding')
    this.#encodings.set(wire, encoding)
  }

  async clear(
    table: TableShape,
    options: { readonly index: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const { index, signal } = options
    const empty = isLargeObjects(table.name)
      ? 'select pg_catalog.lo_unlink(oid) from pg_catalog.pg_largeobject_metadata'
      : `truncate only ${quotePath(table.target)}`
    const forget = `delete from ${chunkMarks} where link = ${quoteText(this.#link)} and table_index = ${index}`
    await this.#pool.with(signal, async (wire) => {
      const doing = `empty ${quotePath(table.target)}`
      await wire.query(`begin; ${empty}; ${forget}; commit`, signal, doing)
    })
  }

  async finish(
    tables: readonly TableShape[],
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> {
    const mine = tables.filter((table) => !isLargeObjects(table.name))
    await eachLimit(mine, this.#parallel, signal, async (table, inner) => {
      const doing = `analyse ${quotePath(table.target)}`
      await this.#pool.with(inner, async (wire) => {
        wire.sendQuery(`analyze ${quotePath(table.target)}`)
        await wire.finishQuery(inner, doing)
      })
    })
    // Written through to the disk, and with it all that was committed before.
    await this.#session.query("set synchronous_commit = 'on'", { signal })
    await removeMarks(this.#session, this.#link, signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]()
    await this.#session[Symbol.asyncDispose]()
  }
}

function copyIn(table: TableShape, encoding: Encoding): string {
  const format = encoding === 'pg/copy-binary' ? 'binary' : 'text'
  if (isLargeObjects(table.name)) {
    return `begin; ${stageLargeObjects}; copy ${stagedColumns} from stdin (format ${format})`
  }
  const columns = writtenColumns(table).map(quoteName).join(', ')
  // Without a list all that can be written is meant, which is nothing then.
  const list = columns === '' ? '' : ` (${columns})`
  return `begin; copy ${quotePath(table.target)}${list} from stdin (format ${format})`
}

async function forwardAll(
  wire: Wire,
  rows: AsyncIterable<RowBlock>,
  { signal, doing }: { readonly signal: AbortSignal; readonly doing: string },
): Promise<number> {
  let came = 0
  for await (const block of rows) {
    // After an error the server throws away all that still comes: nobody need send it.
    const said = wire.pollType('E')
    if (said) throw fromServer(decodeServerError(said.body), doing)
    await wire.forward(block.bytes, signal)
    came += block.rows
  }
  return came
}

const writerSettings = settingsSql([
  // A chunk and its mark are in one transaction: what a crash of the target takes, it takes together.
  ['synchronous_commit', 'off'],
  ['datestyle', 'ISO'],
  ['intervalstyle', 'postgres'],
  ['timezone', 'UTC'],
  ['xmloption', 'content'],
])

// A superuser may, and from 15 on whoever was granted it.
async function maySilenceTriggers(session: Session, signal: AbortSignal): Promise<boolean> {
  try {
    await session.query("set session_replication_role = 'replica'", { signal })
    return true
  } catch (error) {
    if (isFault(error, 'denied')) return false
    throw error
  }
}
