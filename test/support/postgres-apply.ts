import assert from 'node:assert/strict'
import { silentLog } from '#base/log'
import type { Position } from '#change'
import type { Applier, ConflictPolicy } from '#change/apply'
import type { Batch, ChangeReader, Relation, RowRun, Truncation } from '#change/batch'
import { PostgresApply } from '../../src/engines/postgres/apply/apply.ts'
import { parseAddress } from '../../src/engines/postgres/connection.ts'
import { parseLsn, toAt } from '../../src/engines/postgres/lsn.ts'
import { follow } from './postgres-follow.ts'
import { openReader } from './postgres-mirror.ts'
import type { PostgresServer } from './servers/postgres.ts'

const signal = AbortSignal.timeout(3_600_000)

export type Settings = {
  readonly conflicts?: ConflictPolicy | undefined
  readonly converge?: boolean | undefined
  readonly rowsMax?: number | undefined
  readonly lanes?: number | undefined
  readonly alone?: boolean | undefined
  /** The target's, where another role is meant. */
  readonly url?: string | undefined
  /** So many transactions are committed together. */
  readonly together?: number | undefined
  readonly map?: ((name: readonly string[]) => readonly string[]) | undefined
}

/** Two databases of one server: what changes in `postgres` is applied to `target`, which has the same tables. */
export class ApplyTrial {
  readonly server: PostgresServer
  readonly after: Position
  conflicts = 0
  rows = 0

  private constructor(server: PostgresServer, after: Position) {
    this.server = server
    this.after = after
  }

  /** Makes the tables on both sides; the changes of the source are kept from here on. */
  static async begin(server: PostgresServer, tables: string, more = ''): Promise<ApplyTrial> {
    await server.query(tables)
    await server.query('create database target')
    const after = await follow(server)
    await server.query(tables, undefined, 'target')
    if (more) await server.query(more, undefined, 'target')
    return new ApplyTrial(server, after)
  }

  /** Where both databases are there already, each with tables of its own. */
  static async attach(server: PostgresServer): Promise<ApplyTrial> {
    return new ApplyTrial(server, await follow(server))
  }

  /** The same databases; what was written up to now is of no account. */
  async fromHere(): Promise<ApplyTrial> {
    const [row] = await this.server.query<{ lsn: string }>(
      `select pg_current_wal_lsn()::text as lsn`,
    )
    const at = toAt(parseLsn(row?.lsn ?? ''))
    return new ApplyTrial(this.server, { history: this.after.history, at })
  }

  async source(sql: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]> {
    return this.server.query(sql, values)
  }

  async target(sql: string): Promise<Record<string, unknown>[]> {
    return this.server.query(sql, undefined, 'target')
  }

  async openApplier(settings: Settings = {}): Promise<Applier> {
    const { map = (name) => name, conflicts = 'stop', lanes = 1 } = settings
    const apply = new PostgresApply(parseAddress(settings.url ?? this.server.urlOf('target')))
    const selection = { accepts: () => true, map }
    return apply.openApply({ link: 'test', lanes, selection, conflicts, log: silentLog, signal })
  }

  async endApply(): Promise<void> {
    const apply = new PostgresApply(parseAddress(this.server.urlOf('target')))
    await apply.endApply({ link: 'test', signal })
  }

  async openReader(settings: Settings = {}, after = this.after): Promise<ChangeReader> {
    return openReader(this.server.url, { after, rowsMax: settings.rowsMax })
  }

  /** Applies all that the source has written, from where the target is on, with one lane. */
  async run(settings: Settings = {}): Promise<void> {
    await this.server.query(`insert into over default values`)
    const [last] = await this.server.query<{ id: string }>('select max(id) as id from over')
    await using applier = await this.openApplier(settings)
    const mark = await applier.applied({ signal })
    await using reader = await this.openReader(settings, mark?.low ?? this.after)
    const driver = new Driver(applier, settings)
    for await (const item of reader.read({ signal })) {
      if (item.kind === 'batch') await driver.take(item)
      this.rows += driver.rows
      this.conflicts += driver.conflicts
      driver.rows = 0
      driver.conflicts = 0
      if (item.kind === 'batch' && (await this.#has(last?.id ?? ''))) return
    }
  }

  async #has(id: string): Promise<boolean> {
    const rows = await this.target(`select from over where id = ${id}`)
    return rows.length > 0
  }

  /** Compares tables row by row. */
  async assertEqual(tables: readonly string[], rowsMin = 1): Promise<void> {
    for (const table of tables) {
      const sql = `${plain}; select whole_row::text as row from ${table} whole_row order by 1`
      const [source, target] = [await this.source(sql), await this.target(sql)]
      assert.deepEqual(target, source, table)
      assert.ok(source.length >= rowsMin, `${table} has ${source.length} rows`)
    }
  }
}

// What the databases themselves are set to is not looked at.
const plain = `set datestyle = ISO; set intervalstyle = postgres; set extra_float_digits = 3; set bytea_output = hex; set timezone = UTC`

/** One transaction after the other through the first lane, as a link would do it with several. */
export class Driver {
  readonly #applier: Applier
  readonly #settings: Settings
  readonly #known = new Set<Relation>()
  #waiting: (RowRun | Truncation)[] = []
  #count = 0
  rows = 0
  conflicts = 0

  constructor(applier: Applier, settings: Settings = {}) {
    this.#applier = applier
    this.#settings = settings
  }

  async take(batch: Batch): Promise<void> {
    const [lane] = this.#applier.lanes
    assert.ok(lane)
    for (const [index, one] of batch.transactions.entries()) {
      for (const change of one.changes) {
        if (change.kind === 'statement') return assert.fail('a statement')
        for (const relation of 'relation' in change ? [change.relation] : change.relations) {
          if (this.#known.has(relation)) continue
          await this.#applier.prepare(relation, { signal })
          this.#known.add(relation)
        }
        this.#waiting.push(change)
      }
      this.#count += 1
      const isLast = index === batch.transactions.length - 1
      if (!isLast && this.#count < (this.#settings.together ?? 1)) continue
      this.#count = 0
      await this.#write()
      if (one.position) await lane.commit({ low: one.position, beyond: [] }, { signal })
    }
  }

  async #write(): Promise<void> {
    const changes = this.#waiting
    this.#waiting = []
    if (changes.length === 0) return
    const { converge = false, alone } = this.#settings
    const written = await this.#applier.lanes[0]?.write(changes, { converge, alone, signal })
    this.rows += written?.rows ?? 0
    this.conflicts += written?.conflicts ?? 0
  }
}
