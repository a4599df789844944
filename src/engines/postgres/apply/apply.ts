import { createHash } from 'node:crypto'
import { assert, Fault, isFault } from '#base/faults'
import type { Applier, ApplyLane, ApplyTable, ApplyTarget, Mark, OpenApply } from '#change/apply'
import type { CellForm, Relation, Statement } from '#change/batch'
import { type Address, openSession, openWire, type Session } from '../connection.ts'
import type { Wire } from '../protocol/wire.ts'
import { settingsSql } from '../rows-sql.ts'
import { readTarget } from './catalog.ts'
import { PostgresLane, type Shared } from './lane.ts'
import { displacedTable, makeTables, readMark, removeLink, takeOver } from './marks.ts'
import { PreparedTable } from './table.ts'

/** Takes changes into a PostgreSQL database, as they come from another one. */
export class PostgresApply implements ApplyTarget {
  readonly #address: Address

  constructor(address: Address) {
    this.#address = address
  }

  async openApply(options: OpenApply): Promise<Applier> {
    return PostgresApplier.open(this.#address, options)
  }

  async endApply({
    link,
    signal,
  }: {
    readonly link: string
    readonly signal: AbortSignal
  }): Promise<void> {
    await using session = await openSession(this.#address, { signal })
    await removeLink(session, link, signal)
  }
}

class PostgresApplier implements Applier {
  readonly forms: readonly CellForm[] = ['pg/text']
  readonly lanes: readonly ApplyLane[]
  readonly #session: Session
  readonly #wires: readonly Wire[]
  readonly #options: OpenApply
  readonly #tables: Map<Relation, PreparedTable>

  private constructor(
    options: OpenApply,
    parts: {
      session: Session
      wires: readonly Wire[]
      epoch: bigint
      displaced: boolean
      turn: bigint
    },
  ) {
    this.#options = options
    this.#session = parts.session
    this.#wires = parts.wires
    this.#tables = new Map()
    const shared: Shared = {
      link: options.link,
      epoch: parts.epoch,
      conflicts: options.conflicts,
      several: parts.wires.length > 1,
      prepared: (relation) => this.#prepared(relation),
      turn: parts.turn,
      displaced: parts.displaced,
    }
    this.lanes = parts.wires.map((wire, index) => new PostgresLane(wire, index, shared))
  }

  static async open(address: Address, options: OpenApply): Promise<PostgresApplier> {
    const { link, signal } = options
    const lanes = Math.max(1, options.lanes)
    const applicationName = sessionName(link)
    const session = await openSession(address, { signal })
    const wires: Wire[] = []
    try {
      await session.query(laneSettings, { signal })
      await makeTables(session, signal)
      await endOldSessions(session, applicationName, signal)
      const epoch = await takeOver(session, { link, lanes, signal })
      for (let left = lanes; left > 0; left -= 1) {
        const wire = await openWire(address, { signal, applicationName })
        wires.push(wire)
        await setUp(wire, signal)
      }
      const [row] = await session.query(
        `select exists (select from ${displacedTable} where link = $1) as displaced`,
        { signal, values: [link] },
      )
      const turn = (await readMark(session, link, signal))?.turn ?? 0n
      const displaced = row?.['displaced'] === 't'
      return new PostgresApplier(options, { session, wires, epoch, displaced, turn })
    } catch (error) {
      for (const wire of wires) wire.close()
      await session[Symbol.asyncDispose]()
      throw error
    }
  }

  async applied({ signal }: { readonly signal: AbortSignal }): Promise<Mark | undefined> {
    const mark = await readMark(this.#session, this.#options.link, signal)
    return mark && { low: mark.low, beyond: mark.beyond }
  }

  async prepare(
    relation: Relation,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<ApplyTable> {
    assert(relation.form === 'pg/text', 'cells are in a form that was offered')
    const { selection, log } = this.#options
    const form = await readTarget(this.#session, selection.map(relation.name), signal)
    const table = new PreparedTable(relation, form)
    const late = form.keys.find((key) => !key.immediate)
    // Its check is a trigger, which does not fire where changes are written.
    if (late)
      log.warn(
        `the server does not check the deferrable constraint ${late.name} of ${table.shown} for applied changes`,
      )
    this.#tables.set(relation, table)
    return table
  }

  async define(statement: Statement): Promise<void> {
    const shown = statement.sql.slice(0, 60)
    throw new Fault('unsupported', `run a definition on PostgreSQL: ${shown}`, {
      hint: 'PostgreSQL sends no definitions in its log. Make the change on the target by hand, and go on with --resume.',
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const wire of this.#wires) wire.close()
    await this.#session[Symbol.asyncDispose]()
  }

  #prepared(relation: Relation): PreparedTable {
    const table = this.#tables.get(relation)
    assert(table, 'a relation is prepared before its first run')
    return table
  }
}

// A name of its own for each link: by it the sessions of a process that died are found.
function sessionName(link: string): string {
  return `redoubt apply ${createHash('sha256').update(link).digest('hex').slice(0, 16)}`
}

// Rows that they have locked would be waited for.
async function endOldSessions(
  session: Session,
  applicationName: string,
  signal: AbortSignal,
): Promise<void> {
  await session.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where application_name = $1 and datname = current_database() and usename = current_user and pid <> pg_backend_pid()`,
    { signal, values: [applicationName], doing: 'end the sessions of an earlier run' },
  )
}

async function setUp(wire: Wire, signal: AbortSignal): Promise<void> {
  const doing = 'set up a session to apply changes'
  await wire.query(laneSettings, signal, doing)
  await wire.query(durably, signal, doing)
  try {
    await wire.query("set session_replication_role = 'replica'", signal, doing)
  } catch (error) {
    if (!isFault(error, 'denied')) throw error
    throw new Fault('denied', `${doing}: this role may not set session_replication_role`, {
      hint: 'Triggers and foreign keys would do again what the source did. Run on the target, since PostgreSQL 15: GRANT SET ON PARAMETER session_replication_role TO the role; before, a superuser is needed.',
      cause: error,
    })
  }
}

// What a mark says is on the disk: the source is told that it need not keep it.
const durably = `select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'`

const laneSettings = settingsSql([
  ['client_encoding', 'UTF8'],
  ['client_min_messages', 'warning'],
  ['datestyle', 'ISO'],
  ['intervalstyle', 'postgres'],
  ['extra_float_digits', '3'],
  ['bytea_output', 'hex'],
  ['timezone', 'UTC'],
  ['lc_monetary', 'C'],
  ['xmloption', 'content'],
  ['lock_timeout', '30s'],
  // A machine of ours that is gone must not keep rows locked.
  ['tcp_keepalives_idle', '30'],
  ['tcp_keepalives_interval', '10'],
  ['tcp_keepalives_count', '6'],
  // Rows are found by their keys whatever the statistics of a fresh table say, and a statement is planned once.
  ['plan_cache_mode', 'force_generic_plan'],
  ['enable_seqscan', 'off'],
  ['enable_hashjoin', 'off'],
  ['enable_mergejoin', 'off'],
  ['jit', 'off'],
])
