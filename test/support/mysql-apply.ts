import assert from 'node:assert/strict'
import { silentLog } from '#base/log'
import type { Position } from '#change'
import type { Applier, ApplyTable, ConflictPolicy, Mark, Written } from '#change/apply'
import type { Batch, Relation, RowRun, Transaction, Truncation } from '#change/batch'
import type { Selection } from '#change/schema'
import type { Engine } from '#engines'
import { mysql } from '../../src/engines/mysql/mysql.ts'
import { readAll } from './mysql-mirror.ts'
import type { FamilyServer } from './servers/mysql-family.ts'

const limitMs = 600_000

export type FollowOptions = {
  readonly lanes?: number
  readonly conflicts?: ConflictPolicy
  readonly selection?: Pick<Selection, 'accepts' | 'map'>
  readonly converge?: boolean
  readonly link?: string
  /** Transactions of the source for one of the target. */
  readonly together?: number
  readonly rowsMax?: number
  /** Told before each commit. */
  readonly onCommit?: () => void
}

const all: Pick<Selection, 'accepts' | 'map'> = {
  accepts: ([database = '']) =>
    !['mysql', 'sys', 'redoubt', 'performance_schema', 'information_schema'].includes(database),
  map: (name) => name,
}

/** Brings what one server logs to another, one transaction after the other: the simplest link there is. */
export class Follow implements AsyncDisposable {
  readonly applier: Applier
  readonly written = { rows: 0, conflicts: 0 }
  readonly #engine: Engine
  readonly #source: FamilyServer
  readonly #options: FollowOptions
  #after: Position
  #tables = new Map<Relation, ApplyTable>()
  #waiting = 0

  private constructor(
    parts: { readonly engine: Engine; readonly applier: Applier; readonly source: FamilyServer },
    after: Position,
    options: FollowOptions,
  ) {
    this.applier = parts.applier
    this.#engine = parts.engine
    this.#source = parts.source
    this.#after = after
    this.#options = options
  }

  /** Goes on where the target's mark is, or from `after` on. */
  static async open(
    source: FamilyServer,
    target: FamilyServer,
    after: Position,
    options: FollowOptions = {},
  ): Promise<Follow> {
    const signal = AbortSignal.timeout(limitMs)
    const engine = await mysql.open(target.url, { signal, log: silentLog })
    assert.ok(engine.apply)
    const applier = await engine.apply.openApply({
      link: options.link ?? 'test',
      lanes: options.lanes ?? 1,
      selection: options.selection ?? all,
      conflicts: options.conflicts ?? 'stop',
      log: silentLog,
      signal,
    })
    const mark = await applier.applied({ signal })
    return new Follow({ engine, applier, source }, mark?.low ?? after, options)
  }

  /** Applies all that the source has logged by now. */
  async catchUp(): Promise<void> {
    const { selection = all, rowsMax } = this.#options
    const batches = await readAll(this.#source, {
      after: this.#after,
      accepts: (name) => selection.accepts(name),
      ...(rowsMax === undefined ? {} : { rowsMax }),
    })
    for (const batch of batches) await this.take(batch)
    await this.commit()
    this.#after = this.#low
  }

  async take(batch: Batch): Promise<void> {
    for (const one of batch.transactions) await this.#transaction(one)
  }

  async #transaction(one: Transaction): Promise<void> {
    const signal = AbortSignal.timeout(limitMs)
    const { together = 1 } = this.#options
    for (const change of one.changes) {
      if (change.kind === 'statement') {
        await this.commit()
        const passes = one.position !== undefined && change === one.changes.at(-1)
        const low = passes ? one.position : this.#low
        await this.applier.define(change, { low: low ?? this.#low, beyond: [] }, { signal })
        if (passes) this.#passed = one.position
        this.#tables = new Map()
        continue
      }
      const relations = change.kind === 'truncate' ? change.relations : [change.relation]
      for (const relation of relations) await this.table(relation)
      this.#changes.push(change)
    }
    if (!one.ends) await this.#write()
    if (!one.position) return
    this.#passed = one.position
    this.#waiting += 1
    if (this.#waiting >= together) await this.commit()
  }

  async #write(): Promise<void> {
    const changes = this.#changes
    this.#changes = []
    if (changes.length === 0) return
    const options = {
      converge: this.#options.converge ?? false,
      signal: AbortSignal.timeout(limitMs),
    }
    const [lane] = this.applier.lanes
    assert.ok(lane)
    add(this.written, await lane.write(changes, options))
  }

  #changes: (RowRun | Truncation)[] = []
  /** Behind the last transaction that was taken, and that was committed. */
  #passed: Position | undefined
  #reached: Position | undefined

  get #low(): Position {
    return this.#reached ?? this.#after
  }

  /** Commits what was taken, together with its mark. */
  async commit(): Promise<void> {
    const signal = AbortSignal.timeout(limitMs)
    await this.#write()
    this.#waiting = 0
    this.#reached = this.#passed
    this.#options.onCommit?.()
    const mark: Mark = { low: this.#low, beyond: [] }
    await this.applier.lanes[0]?.commit(mark, { signal })
  }

  async table(relation: Relation): Promise<ApplyTable> {
    const known = this.#tables.get(relation)
    if (known) return known
    const made = await this.applier.prepare(relation, { signal: AbortSignal.timeout(limitMs) })
    this.#tables.set(relation, made)
    return made
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.applier[Symbol.asyncDispose]()
    await this.#engine[Symbol.asyncDispose]()
  }
}

function add(into: { rows: number; conflicts: number }, more: Written): void {
  into.rows += more.rows
  into.conflicts += more.conflicts
}
