import { Fault } from '#base/faults'
import type { Applier, ApplyTable, ApplyTarget, Mark, OpenApply } from '#change/apply'
import type { CellForm, Relation, Statement } from '#change/batch'
import type { Source } from '../base.ts'
import { readVariables } from '../server.ts'
import type { Flavor } from '../flavor.ts'
import { Session } from '../protocol/session.ts'
import { openApplySession } from './apply-session.ts'
import { MysqlApplyTable } from './apply-table.ts'
import { Definitions } from './definitions.ts'
import { type Cascades, readCascades } from './foreign-keys.ts'
import { MysqlLane } from './lane.ts'
import { forgetApply, openMarks, readMark } from './marks.ts'
import { controlLane, endOthers, lanesMax, own } from './ownership.ts'
import { readTargetTable } from './target-table.ts'

type Options = { readonly signal: AbortSignal }

/** Takes changes into a server of this family. */
export class MysqlApply implements ApplyTarget {
  readonly #target: Pick<Source, 'endpoint' | 'flavor'>

  constructor(target: Pick<Source, 'endpoint' | 'flavor'>) {
    this.#target = target
  }

  async openApply(options: OpenApply): Promise<Applier> {
    const { endpoint, flavor } = this.#target
    const { signal } = options
    await using stack = new AsyncDisposableStack()
    const control = stack.use(await Session.open(endpoint, { signal }))
    await control.query(`SET SESSION wait_timeout = ${7 * 24 * 3600}`, { signal })
    await endOthers(control, options.link, { signal })
    await own(control, options.link, controlLane, { signal })
    await openMarks(control, { signal })
    const facts = await readServer(control, signal)
    const sessions: Session[] = []
    for (let count = Math.min(lanesMax, Math.max(1, options.lanes)); count > 0; count--) {
      const session = stack.use(await openApplySession(endpoint, flavor, { signal }))
      await own(session, options.link, sessions.length, { signal })
      sessions.push(session)
    }
    return new MysqlApplier({ options, flavor, control, sessions, facts, kept: stack.move() })
  }

  async endApply({ link, signal }: Options & { readonly link: string }): Promise<void> {
    await using session = await Session.open(this.#target.endpoint, { signal })
    await forgetApply(session, link, { signal })
  }
}

type ServerFacts = {
  readonly charsets: ReadonlySet<string>
  readonly packetMaxBytes: number
  /** Names of tables are kept in small letters. */
  readonly lowersNames: boolean
}

async function readServer(session: Session, signal: AbortSignal): Promise<ServerFacts> {
  const rows = await session.texts(
    'SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS',
    { signal },
  )
  const names = ['max_allowed_packet', 'lower_case_table_names']
  const variables = await readVariables(session, names, signal)
  return {
    charsets: new Set(rows.map(([name]) => name ?? '')),
    packetMaxBytes: Number(variables.get('max_allowed_packet') ?? 4 * 1024 * 1024),
    lowersNames: variables.get('lower_case_table_names') === '1',
  }
}

type Parts = {
  readonly options: OpenApply
  readonly flavor: Flavor
  readonly control: Session
  readonly sessions: readonly Session[]
  readonly facts: ServerFacts
  readonly kept: AsyncDisposableStack
}

class MysqlApplier implements Applier {
  readonly forms: readonly CellForm[] = ['mysql/row-image']
  readonly lanes: readonly MysqlLane[]
  readonly #parts: Parts
  readonly #definitions: Definitions
  #tables = new Map<Relation, MysqlApplyTable>()
  #cascades: Cascades | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    const { options, flavor, control, sessions, facts } = parts
    const namesRow = flavor.family === 'mysql' && flavor.number >= 80_019
    this.lanes = sessions.map(
      (session, index) =>
        new MysqlLane({
          session,
          link: options.link,
          index,
          several: sessions.length > 1,
          conflicts: options.conflicts,
          namesRow,
          packetMaxBytes: facts.packetMaxBytes,
          tableOf: (relation) => this.#tableOf(relation),
        }),
    )
    this.#definitions = new Definitions({
      options,
      flavor,
      control,
      lowersNames: facts.lowersNames,
    })
  }

  applied(options: Options): Promise<Mark | undefined> {
    return readMark(this.#parts.control, this.#parts.options.link, options)
  }

  async prepare(relation: Relation, options: Options): Promise<ApplyTable> {
    const { control, facts } = this.#parts
    if (relation.form !== 'mysql/row-image') {
      throw new Fault(
        'unsupported',
        `apply ${relation.name.join('.')}: its cells are ${relation.form}`,
      )
    }
    this.#cascades ??= await readCascades(control, options)
    const mapped = this.#parts.options.selection.map(relation.name)
    const name = facts.lowersNames ? mapped.map((part) => part.toLowerCase()) : mapped
    const target = await readTargetTable(control, name, options)
    const cascades = this.#cascades.of(target.database, target.name)
    const table = new MysqlApplyTable(relation, { target, cascades, charsets: facts.charsets })
    this.#tables.set(relation, table)
    return table
  }

  async define(statement: Statement, mark: Mark, options: Options): Promise<void> {
    // Other forms of tables come behind it, and are prepared anew.
    this.#tables = new Map()
    this.#cascades = undefined
    await this.#definitions.run(statement, mark, options)
  }

  #tableOf(relation: Relation): MysqlApplyTable {
    const table = this.#tables.get(relation)
    if (table) return table
    throw new Error(`broken invariant: ${relation.name.join('.')} was not prepared`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.kept.disposeAsync()
  }
}
