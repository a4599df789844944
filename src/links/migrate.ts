import { randomHex } from '#base/ids'
import { assert, Fault } from '#base/faults'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import { defaultRetry, retry } from '#base/retry'
import { systemTime, type Time } from '#base/time'
import type { Position } from '#change'
import type { ApplyTarget, ConflictPolicy } from '#change/apply'
import type { ChangeSource } from '#change/batch'
import type { CopySource, CopyTarget } from '#change/copy'
import type { Finding } from '#change/finding'
import type {
  ObjectName,
  Phase,
  Schema,
  SchemaObject,
  SchemaSource,
  SchemaTarget,
  Selection,
} from '#change/schema'
import { copyRows } from './copy.ts'
import { type Flow, FlowMeter } from './flow.ts'
import { followCopy } from './following.ts'
import { type At, decide, type LinkAction, type LinkEvent, newLink } from './link.ts'
import { leftToMake, makeQuiet, makeStage } from './schema.ts'
import { type Choices, createSelection, selectionFindings } from './selection.ts'
import { type Changing, hasState, type LinkStore, openState, type Plan } from './state.ts'
import { type Rate, Throttle } from './throttle.ts'

/** What a link asks of the data system at one of its ends; an engine is one. */
export interface LinkEnd {
  readonly facts: { readonly engine: string; readonly flavor: string; readonly version: string }
  readonly schema?: (SchemaSource & SchemaTarget) | undefined
  readonly rows?: (CopySource & CopyTarget) | undefined
  readonly changes?: ChangeSource | undefined
  readonly apply?: ApplyTarget | undefined
  probe(
    use: 'migrate-from' | 'migrate-to' | 'sync-from' | 'sync-to',
    options: { readonly signal: AbortSignal },
  ): Promise<Finding[]>
}

/** What the user asked for; on a resume what is left out is as recorded. */
export type Asked = {
  readonly [Name in keyof Choices]?: Choices[Name] | undefined
} & {
  readonly phases?: readonly Phase[] | undefined
  /** Of the changes; on a resume it may be another than before. */
  readonly until?: string | undefined
  readonly conflicts?: ConflictPolicy | undefined
}

/** Everything that was found before anything is written. */
export type Preview = {
  readonly findings: readonly Finding[]
  readonly objects: readonly SchemaObject[]
  readonly tables: Schema['tables']
}

export type MigrateOptions = {
  readonly source: LinkEnd
  readonly target: LinkEnd
  /** Both ends, without secrets and logins: `mysql://db:3306/`. */
  readonly from: string
  readonly to: string
  readonly asked: Asked
  readonly stateDirectory: string
  readonly resume: boolean
  readonly dryRun: boolean
  readonly parallel: number
  readonly rate?: Rate | undefined
  /** Called once, before anything is written; not on a resume. */
  readonly onPreview: (preview: Preview) => void
  /** What the link decided. */
  readonly onSaid: (said: string, at: At) => void
  readonly progress: Progress
  /** Counts the changes, when there are any to come. */
  readonly onMeter?: ((meter: FlowMeter) => void) | undefined
  readonly chunkBytes?: number | undefined
  /** Rows of changes that are read at once. */
  readonly batchRowsMax?: number | undefined
  readonly time?: Time | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

export type MigratedTable = {
  readonly name: ObjectName
  readonly target: ObjectName
  readonly rows: bigint
  readonly bytes: number
  readonly tookMs: number
}

export type Migrated = {
  readonly done: boolean
  readonly from: string
  readonly to: string
  readonly phases: readonly Phase[]
  /** What the rows are as of: one position, unless readers of the source were lost. */
  readonly positions: readonly Position[]
  readonly objects: Readonly<Record<string, number>>
  readonly tables: readonly MigratedTable[]
  /** What was carried of changes since this process began. */
  readonly changes?: Flow | undefined
  readonly findings: readonly Finding[]
}

/**
 * Brings schema and rows of one data system to another, and can be killed at any moment: `resume` goes on. Throws `refused`
 * when a finding blocks, `exists` and `missing` when the state directory is not as `resume` says, `locked` when another
 * process uses it, `usage` when it belongs to other ends or choices.
 */
export async function migrate(options: MigrateOptions): Promise<Migrated> {
  using link = new Migration(options)
  return await link.run()
}

class Migration implements Disposable {
  readonly #options: MigrateOptions
  readonly #time: Time
  #store: LinkStore | undefined
  #choices: Choices = { include: [], exclude: [], map: '', accounts: false, convert: false }
  #phases: readonly Phase[]
  #preview: Preview = { findings: [], objects: [], tables: [] }
  #meter: FlowMeter | undefined

  constructor(options: MigrateOptions) {
    this.#options = options
    this.#time = options.time ?? systemTime
    const { phases, until, conflicts, ...choices } = options.asked
    const changes = until !== undefined || conflicts !== undefined
    this.#phases = phases ?? (changes ? ['schema', 'copy', 'changes'] : ['schema', 'copy'])
    this.#choices = { ...this.#choices, ...given(choices) }
  }

  async run(): Promise<Migrated> {
    const { resume, stateDirectory, onSaid, log } = this.#options
    if (hasState(stateDirectory)) this.#store = await openState(stateDirectory)
    const recorded = this.#store?.at
    if (resume && recorded !== undefined) this.#recall()
    let state = newLink(this.#phases)
    let event: LinkEvent = { kind: 'begun', recorded, resume }
    for (;;) {
      const decision = decide(state, event)
      // Recorded before it is done: whoever comes after a crash does it again, and nothing else.
      if (decision.state.at !== state.at) await this.#record(decision.state.at)
      state = decision.state
      onSaid(decision.said, state.at)
      log.debug(decision.said, { at: state.at })
      const next = await this.#perform(decision.action)
      if (next === undefined) return this.#result(state.at === 'done')
      event = next
    }
  }

  [Symbol.dispose](): void {
    this.#store?.[Symbol.dispose]()
  }

  /** What was chosen when the link began holds for all its life. */
  #recall(): void {
    const plan = this.#plan()
    const { from, to, asked, stateDirectory } = this.#options
    const other = (what: string) =>
      new Fault('usage', `resume: the state in ${stateDirectory} is of ${what}`, {
        hint: 'Name the same ends and choices as when it began, or leave the choices out.',
      })
    if (plan.from !== from || plan.to !== to) throw other(`${plan.from} to ${plan.to}`)
    const recorded: Readonly<Record<string, unknown>> = { ...plan.choices, phases: plan.phases }
    const { until, conflicts, ...choices } = asked
    if ((until !== undefined || conflicts !== undefined) && !plan.phases.includes('changes')) {
      throw other('a link without changes')
    }
    for (const [name, value] of Object.entries(given(choices))) {
      if (JSON.stringify(recorded[name]) !== JSON.stringify(value)) throw other(`another --${name}`)
    }
    this.#choices = plan.choices
    this.#phases = plan.phases
    if (this.#follows) this.#opened().setChanging(this.#changing())
  }

  /** What is asked of the changes now, or was asked before. */
  #changing(): Changing {
    const { until, conflicts } = this.#options.asked
    const before = this.#opened().changing() ?? { until: 'caught-up', conflicts: 'stop' }
    return { until: until ?? before.until, conflicts: conflicts ?? before.conflicts }
  }

  async #record(at: At): Promise<void> {
    assert(at !== 'new', 'a link is new once')
    if (at === 'planned') return
    this.#opened().stand(at)
  }

  async #perform(action: LinkAction): Promise<LinkEvent | undefined> {
    const { signal, progress, target, log } = this.#options
    signal.throwIfAborted()
    switch (action.kind) {
      case 'check':
        return this.#check()
      case 'record':
        await this.#recordPlan()
        return { kind: 'recorded' }
      case 'make': {
        progress.phase = `make ${action.stage}`
        const schema = needed(target.schema, 'make tables')
        const store = this.#opened()
        const { convert } = this.#choices
        const making = { store, target: schema, convert, progress, log, signal }
        if (action.quiet && action.stage === 'end') await makeQuiet(making)
        else await makeStage(action.stage, making)
        return { kind: 'made', stage: action.stage }
      }
      case 'copy':
        progress.phase = 'copy'
        await this.#copy()
        return { kind: 'copied' }
      case 'carry':
        progress.phase = 'apply changes'
        await this.#carry()
        return { kind: 'carried' }
      case 'read':
        progress.phase = 'read objects'
        await this.#readAgain()
        return { kind: 'read' }
      case 'tidy':
        if (action.of === 'link') await this.#endLink()
        await this.#tidy()
        return { kind: 'tidied' }
      case 'end':
        return undefined
      case 'refuse': {
        const { code, why, hint } = action
        throw new Fault(code, `migrate to ${this.#options.to}: ${why}`, {
          hint: this.#withState(hint),
        })
      }
      default:
        return action satisfies never
    }
  }

  async #check(): Promise<LinkEvent> {
    const { source, target, signal, dryRun, onPreview } = this.#options
    const found = [
      ...sideOf('source', await source.probe('migrate-from', { signal })),
      ...(this.#follows ? sideOf('source', await source.probe('sync-from', { signal })) : []),
      ...sideOf('target', await target.probe(this.#follows ? 'sync-to' : 'migrate-to', { signal })),
    ]
    const findings = found.filter(
      ({ said }, index) => found.findIndex((other) => other.said === said) === index,
    )
    refuseOtherEngine(source, target)
    if (this.#follows) {
      needed(source.changes, 'read changes')
      needed(target.apply, 'apply changes')
    }
    const { convert } = this.#choices
    const from = needed(source.schema, 'read the schema')
    const to = needed(target.schema, 'make tables')
    const schema = await from.readSchema(this.#selection(), { signal })
    findings.push(...schema.findings, ...selectionFindings(this.#choices, schema))
    findings.push(...(await to.checkSchema(schema, { phases: this.#phases, convert, signal })))
    if (schema.tables.length === 0 && schema.objects.length === 0) {
      const said = 'there is nothing to carry: the source has no such objects'
      findings.push({ severity: 'blocks', code: 'nothing-selected', said })
    }
    const { objects, tables } = schema
    this.#preview = { findings, objects, tables }
    onPreview(this.#preview)
    const blocking = findings.filter(({ severity }) => severity === 'blocks').length
    return { kind: 'checked', blocking, dryRun }
  }

  async #recordPlan(): Promise<void> {
    const { from, to, stateDirectory } = this.#options
    this.#store ??= await openState(stateDirectory)
    // Another process began there meanwhile, or this is a resume of a link that did not come further.
    if (this.#store.at !== undefined && this.#options.resume) return
    if (this.#store.at !== undefined) {
      throw new Fault(
        'locked',
        `record the plan in ${stateDirectory}: another migration began there`,
      )
    }
    const { objects, tables, findings } = this.#preview
    this.#store.record(
      {
        id: randomHex(8),
        from,
        to,
        choices: this.#choices,
        phases: this.#phases,
        objects: this.#phases.includes('schema') ? objects : [],
        tables: this.#phases.includes('copy') ? tables : [],
        findings,
      },
      this.#follows ? this.#changing() : undefined,
    )
  }

  async #copy(): Promise<void> {
    const { source, target, parallel, rate, progress, chunkBytes, log, signal } = this.#options
    await copyRows({
      source: { schema: needed(source.schema, 'read'), rows: needed(source.rows, 'read rows') },
      target: { schema: needed(target.schema, 'make'), rows: needed(target.rows, 'take rows') },
      store: this.#opened(),
      link: this.#plan().id,
      followed: this.#follows,
      selection: this.#selection(),
      makes: this.#phases.includes('schema'),
      convert: this.#choices.convert,
      throttle: rate && new Throttle(rate, this.#time),
      parallel,
      progress,
      chunkBytes,
      time: this.#time,
      log,
      signal,
    })
    this.#findSeveralPositions()
  }

  async #carry(): Promise<void> {
    const { source, target, parallel, rate, progress, stateDirectory, log, signal } = this.#options
    const meter = new FlowMeter(progress, this.#time)
    this.#meter = meter
    this.#options.onMeter?.(meter)
    await followCopy(this.#plan().id, {
      source: needed(source.changes, 'read changes'),
      target: needed(target.apply, 'apply changes'),
      store: this.#opened(),
      stateDirectory,
      selection: this.#selection(),
      parallel,
      throttle: rate && new Throttle(rate, this.#time),
      batchRowsMax: this.#options.batchRowsMax,
      meter,
      time: this.#time,
      log,
      signal,
    })
  }

  /** Sequences went on, and programs may have changed, while changes were carried. */
  async #readAgain(): Promise<void> {
    const { source, signal } = this.#options
    const from = needed(source.schema, 'read the schema')
    const schema = await from.readSchema(this.#selection(), { signal })
    const store = this.#opened()
    store.replaceUnmade(leftToMake(store, schema.objects))
  }

  async #endLink(): Promise<void> {
    const { source, target, signal } = this.#options
    const link = this.#plan().id
    const changes = needed(source.changes, 'read changes')
    // A source may notice a little later only that nobody reads any more.
    const policy = { ...defaultRetry, time: this.#time }
    await retry(policy, signal, () => changes.endChanges({ name: link, signal }))
    await needed(target.apply, 'apply changes').endApply({ link, signal })
  }

  /** Tables that were whole before a reader was lost are older than those that came after. */
  #findSeveralPositions(): void {
    const store = this.#opened()
    const used = store.runs().filter((run) => run.used)
    const stamps = new Set(used.map(({ run, stamp }) => stamp ?? `run ${run}`))
    // Changes make one moment of several.
    if (stamps.size < 2 || this.#follows) return
    store.addFinding({
      severity: 'warns',
      code: 'several-positions',
      said: 'the copy was interrupted: not all tables are as of one position of the source',
      mend: 'compare both sides, or copy again while nobody writes',
    })
  }

  async #tidy(): Promise<void> {
    const { target, parallel, log, signal } = this.#options
    const store = this.#opened()
    const rows = needed(target.rows, 'take rows')
    const run = Math.max(0, store.runs().length - 1)
    await using writer = await rows.openCopy({ link: this.#plan().id, run, parallel, log, signal })
    const tables = store.tables().map(({ shape }) => shape)
    await writer.finish(tables, { signal })
  }

  #result(done: boolean): Migrated {
    const { from, to } = this.#options
    const store = this.#store
    const used = store?.runs().filter((run) => run.used) ?? []
    const positions = used.flatMap(({ position }) => position ?? [])
    const tables = store?.tables() ?? []
    return {
      done,
      from,
      to,
      phases: this.#phases,
      positions: positions.filter(
        (position, index) => positions.findIndex(({ at }) => at === position.at) === index,
      ),
      objects: store?.madeKinds() ?? {},
      tables: tables.map(({ shape, result }) => ({
        name: shape.name,
        target: shape.target,
        ...(result ?? { rows: 0n, bytes: 0, tookMs: 0 }),
      })),
      ...(this.#meter && { changes: this.#meter.flow }),
      findings: [
        ...(store?.plan()?.findings ?? this.#preview.findings),
        ...(store?.laterFindings() ?? []),
      ],
    }
  }

  get #follows(): boolean {
    return this.#phases.includes('changes')
  }

  #selection(): Selection {
    return createSelection(this.#choices)
  }

  #plan(): Plan {
    const plan = this.#opened().plan()
    assert(plan !== undefined, 'a link that goes on has a plan')
    return plan
  }

  #opened(): LinkStore {
    assert(this.#store !== undefined, 'a link that was planned has a state')
    return this.#store
  }

  #withState(hint: string): string {
    return this.#store === undefined ? hint : `${hint} (--state ${this.#options.stateDirectory})`
  }
}

function sideOf(side: string, findings: readonly Finding[]): Finding[] {
  return findings.map((finding) => ({ ...finding, said: `${side}: ${finding.said}` }))
}

/** Only what was said, so that it does not hide what is recorded. */
function given(asked: Asked): Partial<Choices> {
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined))
}

function refuseOtherEngine(source: LinkEnd, target: LinkEnd): void {
  const [from, to] = [source.facts, target.facts]
  if (from.engine === to.engine) return
  const pair = `${from.flavor} to ${to.flavor}`
  throw new Fault('unsupported', `migrate from ${pair}: these do not read each other yet`, {
    hint: 'Today data moves within the MySQL family, and from PostgreSQL to PostgreSQL.',
  })
}

function needed<T>(port: T | undefined, doing: string): T {
  if (port !== undefined) return port
  throw new Fault('unsupported', `${doing}: this engine cannot do it yet`)
}
