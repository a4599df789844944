import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { Pool } from '#base/pool'
import type { Position } from '#change'
import type { BeginCopy, Chunk, CopyReader, Encoding, RowBlock } from '#change/copy'
import type { TableShape } from '#change/schema'
import { makePublication } from './changes/publication.ts'
import { type BlockCut, cutBlocks, parseRange, rangeCondition } from './chunks.ts'
import {
  type Address,
  openBulkWire,
  openLogicalSender,
  openSession,
  type Session,
} from './connection.ts'
import type { ServerFacts } from './facts.ts'
import { cutLargeObjects, largeObjectsSql } from './large-objects.ts'
import { parseLsn, positionOf } from './lsn.ts'
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
import { slotName } from './slot.ts'
import { textOnlyTables } from './text-only.ts'

/** Whoever holds a table for itself is waited for so long. */
const lockMaxMs = 30_000
/** So many tables in one LOCK statement. */
const lockedAtOnce = 500
/** Before 14 a range of blocks is no way into a table: all of it is read for each. */
const rangesSince = 140_000

/** Sessions that see the source at one moment, held open by a transaction that also keeps the tables from being changed. */
export class PostgresCopyReader implements CopyReader {
  readonly position: Position | undefined
  readonly stamp: string | undefined
  readonly #snapshot: Snapshot
  readonly #pool: Pool<Wire>
  readonly #facts: ServerFacts
  readonly #textOnly: ReadonlySet<string>
  #planned: Promise<unknown> = Promise.resolve()

  private constructor(parts: {
    readonly snapshot: Snapshot
    readonly pool: Pool<Wire>
    readonly facts: ServerFacts
    readonly textOnly: ReadonlySet<string>
  }) {
    this.position = parts.snapshot.position
    this.stamp = parts.snapshot.stamp
    this.#snapshot = parts.snapshot
    this.#pool = parts.pool
    this.#facts = parts.facts
    this.#textOnly = parts.textOnly
  }

  static async begin(
    address: Address,
    facts: ServerFacts,
    options: BeginCopy,
  ): Promise<PostgresCopyReader> {
    const { tables, parallel, signal } = options
    const snapshot = await takeSnapshot(address, facts, options)
    try {
      const textOnly = await textOnlyTables(snapshot.leader, tables, signal)
      const encoding = tables[0] ? encodingOf(tables[0]) : 'UTF8'
      const begin = `begin isolation level repeatable read, read only; set transaction snapshot ${quoteText(snapshot.name)}`
      const open = async (inner: AbortSignal) => {
        const wire = await openBulkWire(address, { signal: inner })
        try {
          await wire.query(readerSettings(encoding), inner, 'set up a session to read rows')
          await wire.query(begin, inner, 'take part in the snapshot')
          return wire
        } catch (error) {
          wire.close()
          throw error
        }
      }
      const pool = new Pool<Wire>({
        size: parallel,
        open,
        isAlive: (wire) => wire.alive,
        close: (wire) => wire.close(),
      })
      return new PostgresCopyReader({ snapshot, pool, facts, textOnly })
    } catch (error) {
      await endSnapshot(snapshot)
      throw error
    }
  }

  /** Never: an updated row moves to another block. */
  chunksByKey(_table: TableShape): boolean {
    return false
  }

  encodings(table: TableShape): readonly Encoding[] {
    return this.#textOnly.has(quotePath(table.name))
      ? ['pg/copy-text']
      : ['pg/copy-binary', 'pg/copy-text']
  }

  async plan(
    table: TableShape,
    options: { readonly index: number; readonly chunkBytes: number; readonly signal: AbortSignal },
  ): Promise<readonly Chunk[]> {
    // Several ask at once, and one session answers.
    const cuts = this.#planned.then(() => this.#cutTable(table, options))
    this.#planned = cuts.catch(() => undefined)
    return (await cuts).map((cut, chunk) => ({ table: options.index, index: chunk, ...cut }))
  }

  async #cutTable(
    table: TableShape,
    { chunkBytes, signal }: { readonly chunkBytes: number; readonly signal: AbortSignal },
  ): Promise<readonly BlockCut[]> {
    return isLargeObjects(table.name)
      ? cutLargeObjects(this.#snapshot.leader, chunkBytes, signal)
      : this.#cut(table, chunkBytes, signal)
  }

  async #cut(table: TableShape, chunkBytes: number, signal: AbortSignal) {
    const [row] = await this.#snapshot.leader.query(
      `select pg_relation_size(c) / current_setting('block_size')::int as blocks, pg_table_size(c) as size
       from (select $1::regclass as c) x`,
      { signal, values: [quotePath(table.name)], doing: `measure ${quotePath(table.name)}` },
    )
    const sizeBytes = Number(row?.['size'] ?? 0)
    const count = Number(row?.['blocks'] ?? 0)
    const cutsRanges = this.#facts.versionNumber >= rangesSince
    return cutBlocks({ count, sizeBytes }, cutsRanges ? chunkBytes : Number.POSITIVE_INFINITY)
  }

  async *read(
    table: TableShape,
    chunk: Chunk,
    options: { readonly encoding: Encoding; readonly signal: AbortSignal },
  ): AsyncGenerator<RowBlock, void, void> {
    const { encoding, signal } = options
    const doing = `read ${quotePath(table.name)}`
    const wire = await this.#pool.borrow(signal)
    let sound = false
    try {
      wire.sendQuery(copyOut(table, chunk, encoding))
      const opening = await wire.expect(signal, doing, 'H')
      if (opening.body.length === 0) throw new Fault('protocol', `${doing}: no format came`)
      // In the binary form the trailer is a message too: no row. The one that comes too many is taken off the first.
      let extra = encoding === 'pg/copy-binary' ? 1 : 0
      let read = 0
      for (;;) {
        const run = await wire.copyRun(signal)
        if (!run) break
        const rows = run.messages - Math.min(extra, run.messages)
        extra -= run.messages - rows
        read += rows
        yield { bytes: run.bytes, rows }
      }
      await wire.expect(signal, doing, 'c')
      const done = await wire.expect(signal, doing, 'C')
      checkCount(doing, read, done.body.toString('latin1'))
      await wire.finishQuery(signal, doing)
      sound = true
    } finally {
      this.#pool.giveBack(wire, sound)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]()
    await endSnapshot(this.#snapshot)
  }
}

function checkCount(doing: string, read: number, said: string): void {
  const told = Number(/^COPY (\d+)/.exec(said)?.[1] ?? Number.NaN)
  if (read === told) return
  throw new Fault('protocol', `${doing}: ${read} rows came, and the server says ${told}`)
}

function copyOut(table: TableShape, chunk: Chunk, encoding: Encoding): string {
  const format = encoding === 'pg/copy-binary' ? 'binary' : 'text'
  if (isLargeObjects(table.name)) {
    return `copy (${largeObjectsSql(chunk.range)}) to stdout (format ${format})`
  }
  const columns = writtenColumns(table).map(quoteName).join(', ')
  const condition = rangeCondition(parseRange(chunk.range))
  const name = quotePath(table.name)
  // A table by itself goes past the executor; what inherits from it is no part of it here either.
  const rows =
    condition === undefined
      ? `${name}${columns === '' ? '' : ` (${columns})`}`
      : `(select ${columns} from only ${name} where ${condition})`
  return `copy ${rows} to stdout (format ${format})`
}

// Bytes as they are stored: the target converts them where its encoding is another one.
function readerSettings(encoding: string): string {
  return settingsSql([
    ['synchronize_seqscans', 'off'],
    ['client_encoding', encoding],
    ['datestyle', 'ISO'],
    ['intervalstyle', 'postgres'],
    ['extra_float_digits', '3'],
    ['bytea_output', 'hex'],
    ['timezone', 'UTC'],
  ])
}

type Snapshot = {
  /** Holds the locks. */
  readonly keeper: Session
  readonly leader: Session
  /** The walsender whose slot goes with it, where it is a temporary one. */
  readonly slot: Wire | undefined
  readonly name: string
  readonly position: Position | undefined
  readonly stamp: string | undefined
}

async function takeSnapshot(
  address: Address,
  facts: ServerFacts,
  options: BeginCopy,
): Promise<Snapshot> {
  const { signal, follow, tables, log } = options
  const keeper = await openSession(address, { signal })
  const leader = await openSession(address, { signal })
  let slot: LogicalSlot | undefined
  try {
    for (const session of [keeper, leader]) await session.query(readerSettings('UTF8'), { signal })
    // Before the snapshot: what was truncated or rewritten behind it would look empty.
    await lockTables(keeper, tables, signal)
    if (follow !== undefined) {
      // Before the slot, and seen by it.
      const names = tables.map((table) => table.name)
      await using session = await openSession(address, { signal })
      await makePublication(session, { name: follow, tables: names, signal })
    }
    if (follow !== undefined) slot = await makeSlot(address, slotName(follow), { signal, log })
    const at = slot ? slot.at : await logEnd(keeper, facts, signal)
    await leader.query('begin isolation level repeatable read, read only', { signal })
    if (slot) {
      await leader.query(`set transaction snapshot ${quoteText(slot.snapshot)}`, { signal })
      // The temporary one lives as long as its session; the other's session has done its work.
      if (!slot.temporary) slot.wire.close()
    }
    const [row] = await leader.query(
      'select pg_export_snapshot() as name, txid_current_snapshot() as seen',
      { signal, doing: 'export the snapshot' },
    )
    const position = at === undefined ? undefined : positionOf(facts, at)
    const kept = slot?.temporary ? slot.wire : undefined
    return {
      keeper,
      leader,
      slot: kept,
      name: row?.['name'] ?? '',
      position,
      stamp: stampOf(facts, row?.['seen'] ?? ''),
    }
  } catch (error) {
    slot?.wire.close()
    await leader[Symbol.asyncDispose]()
    await keeper[Symbol.asyncDispose]()
    throw error
  }
}

// `xmin:xmax:in progress`: who sees the same of both, and nobody in progress, sees the same rows.
function stampOf(facts: ServerFacts, seen: string): string | undefined {
  const [first, next, busy] = seen.split(':')
  return first === next && busy === '' ? `${facts.systemId}:${next}` : undefined
}

async function endSnapshot({ keeper, leader, slot }: Snapshot): Promise<void> {
  slot?.close()
  await leader[Symbol.asyncDispose]()
  await keeper[Symbol.asyncDispose]()
}

// Without a slot nobody says where in the log a snapshot is: what committed before this is in it, and perhaps a little more.
async function logEnd(
  session: Session,
  facts: ServerFacts,
  signal: AbortSignal,
): Promise<bigint | undefined> {
  const sql = facts.standby
    ? 'select pg_last_wal_replay_lsn() as lsn'
    : 'select pg_current_wal_insert_lsn() as lsn'
  const [row] = await session.query(sql, { signal, doing: 'read where the log ends' })
  const lsn = row?.['lsn'] ?? undefined
  return lsn === undefined ? undefined : parseLsn(lsn)
}

type LogicalSlot = {
  readonly wire: Wire
  readonly at: bigint
  readonly snapshot: string
  readonly temporary: boolean
}

/**
 * A logical slot, and the snapshot that goes with its first position. Where the slot is there already, its position stands;
 * a temporary one then says what the new snapshot is as of.
 * https://www.postgresql.org/docs/current/protocol-replication.html
 */
async function makeSlot(
  address: Address,
  name: string,
  options: { readonly signal: AbortSignal; readonly log: Log },
): Promise<LogicalSlot> {
  const { signal, log } = options
  const wire = await openLogicalSender(address, { signal })
  const make = async (slot: string, temporary: boolean): Promise<LogicalSlot> => {
    const [rows] = await wire.query(
      `CREATE_REPLICATION_SLOT ${quoteName(slot)} ${temporary ? 'TEMPORARY ' : ''}LOGICAL pgoutput EXPORT_SNAPSHOT`,
      signal,
      `make replication slot ${slot}`,
    )
    const [, lsn, snapshot] = rows?.[0] ?? []
    if (lsn === undefined || snapshot === undefined) {
      throw new Fault('protocol', `make replication slot ${slot}: no snapshot came`)
    }
    return { wire, at: parseLsn(lsn), snapshot, temporary }
  }
  try {
    try {
      return await make(name, false)
    } catch (error) {
      if (!isFault(error, 'exists')) throw error
      log.info('the replication slot is there already: it is kept', { slot: name })
      return await make(`${name.slice(0, 52)}_${process.pid}`, true)
    }
  } catch (error) {
    wire.close()
    throw error
  }
}

// TRUNCATE, DROP and rewrites would take rows away that the snapshot shows: they wait, rows may be written.
async function lockTables(
  keeper: Session,
  tables: readonly TableShape[],
  signal: AbortSignal,
): Promise<void> {
  await keeper.query('begin', { signal })
  const names = tables
    .filter((table) => !isLargeObjects(table.name))
    .map((table) => `only ${quotePath(table.name)}`)
  await keeper.query(`set local lock_timeout = ${lockMaxMs}`, { signal })
  for (let first = 0; first < names.length; first += lockedAtOnce) {
    const some = names.slice(first, first + lockedAtOnce)
    await keeper.query(`lock table ${some.join(', ')} in access share mode`, {
      signal,
      doing: 'keep the tables from being changed while they are copied',
    })
  }
}
