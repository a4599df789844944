import { Fault } from '#base/faults'
import { randomHex } from '#base/ids'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import { eachLimit } from '#base/tasks'
import { systemTime, type Time } from '#base/time'
import type { Digester, DigestSource, KeyRange } from '#change/digest'
import type { Finding } from '#change/finding'
import type { ObjectName, Schema, SchemaSource, Selection, TableShape } from '#change/schema'
import { compareBuckets } from './buckets.ts'
import { Pace } from './pace.ts'
import { type Pair, pairTables } from './pair.ts'
import { Disordered, Ranges } from './ranges.ts'
import { Repair } from './repair.ts'
import { compareStructure, type StructureDifference } from './structure.ts'
import { TableResult, type TableVerified } from './table-result.ts'
import { both, type Sides, type Work } from './work.ts'

/** What a comparison asks of the data system at one of its ends; an engine is one. */
export interface VerifyEnd {
  readonly facts: { readonly engine: string; readonly flavor: string; readonly version: string }
  readonly schema?: SchemaSource | undefined
  readonly digest?: DigestSource | undefined
}

export type Mode =
  | { readonly kind: 'schema' }
  | { readonly kind: 'full' }
  /** A share of the rows: 0.01 for one per cent. */
  | { readonly kind: 'sample'; readonly share: number; readonly seed: string | undefined }

export type VerifyOptions = {
  readonly source: VerifyEnd
  readonly target: VerifyEnd
  /** Both ends, without secrets and logins. */
  readonly from: string
  readonly to: string
  readonly mode: Mode
  readonly selection: Pick<Selection, 'accepts' | 'map'>
  /** From a name on the target to that on the source. */
  readonly unmap: (name: ObjectName) => ObjectName
  /** What is odd about what was chosen, among the objects of both sides; a finding that blocks refuses. */
  readonly judge?: ((schema: Schema) => readonly Finding[]) | undefined
  readonly parallel: number
  readonly rowsPerSecond?: number | undefined
  /** How long a difference is looked at again before it counts; 0: not at all. */
  readonly recheckMs: number
  readonly repair?: 'plan' | 'apply' | undefined
  /** Rows that are named of each table. */
  readonly namedMax: number
  readonly chunkRows?: number | undefined
  readonly progress: Progress
  readonly time?: Time | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

export type Verified = {
  readonly from: string
  readonly to: string
  readonly mode: Mode['kind']
  /** Everything that was compared is equal, or was made so. */
  readonly equal: boolean
  /** Of a sample: what chose the rows, and chooses the same again. */
  readonly seed: string | undefined
  readonly objects: number
  readonly structure: readonly StructureDifference[]
  readonly tables: readonly TableVerified[]
  readonly findings: readonly Finding[]
  readonly repair:
    | {
        readonly kind: 'plan' | 'apply'
        readonly statements: readonly string[]
        readonly more: boolean
      }
    | undefined
}

/**
 * Compares what two data systems hold, in both directions, while they are in use: objects by their definitions, rows by
 * digests that are computed where they are. Writes nothing but what `repair: 'apply'` asks for.
 */
export async function verify(options: VerifyOptions): Promise<Verified> {
  return new Verification(options).run()
}

class Verification {
  readonly #options: VerifyOptions
  readonly #time: Time
  readonly #seed: string | undefined
  readonly #repair: Repair | undefined
  readonly #findings: Finding[] = []

  constructor(options: VerifyOptions) {
    const { mode, repair } = options
    this.#options = options
    this.#time = options.time ?? systemTime
    this.#seed = mode.kind === 'sample' ? (mode.seed ?? randomHex(8)) : undefined
    this.#repair = repair && new Repair(repair)
  }

  async run(): Promise<Verified> {
    const { from, to, mode, progress, unmap } = this.#options
    const [source, target] = await this.#readSchemas()
    this.#refuseNothing(source, target)
    this.#judge(source, target)
    const { objects, differences: structure } = compareStructure({ source, target, unmap })
    progress.phase = 'compare rows'
    const results = mode.kind === 'schema' ? [] : await this.#compareRows(source, target)
    const tables = results.map((result) => result.end())
    const equal = structure.length === 0 && tables.every(isEqual)
    const plan = this.#repair?.plan
    return {
      from,
      to,
      mode: mode.kind,
      equal,
      seed: this.#seed,
      objects,
      structure,
      tables,
      findings: this.#findings,
      repair: plan && { kind: this.#repair?.kind ?? 'plan', ...plan },
    }
  }

  async #readSchemas(): Promise<readonly [Schema, Schema]> {
    const { source, target, selection, unmap, signal } = this.#options
    const from = needed(source.schema, 'read the schema')
    const to = needed(target.schema, 'read the schema')
    if (source.facts.engine !== target.facts.engine) {
      const pair = `${source.facts.flavor} with ${target.facts.flavor}`
      throw new Fault('unsupported', `compare ${pair}: these do not read each other yet`, {
        hint: 'Today servers of the MySQL family are compared, and PostgreSQL with PostgreSQL.',
      })
    }
    const { accepts } = selection
    const plain: Selection = { accepts, map: (name) => name, accounts: false }
    const back: Selection = {
      accepts: (name) => accepts(unmap(name)),
      map: unmap,
      accounts: false,
    }
    return both(from.readSchema(plain, { signal }), to.readSchema(back, { signal }))
  }

  #refuseNothing(source: Schema, target: Schema): void {
    const { from, to } = this.#options
    if (source.objects.length + source.tables.length > 0) return
    if (target.objects.length + target.tables.length > 0) return
    throw new Fault('refused', `compare ${from} with ${to}: neither has any such objects`, {
      hint: 'Mend --include and --exclude, or the URLs.',
    })
  }

  /** What could not be read is told, and does not make the sides unequal; nonsense in what was chosen is refused. */
  #judge(source: Schema, target: Schema): void {
    const { judge, from, to } = this.#options
    const all = { ...source, objects: [...source.objects, ...target.objects] }
    const found = [...(judge?.(all) ?? []), ...source.findings, ...target.findings]
    for (const { severity, code, said } of found) {
      if (severity === 'blocks') throw new Fault('refused', `compare ${from} with ${to}: ${said}`)
      const isNew = !this.#findings.some((one) => one.said === said)
      if (severity === 'warns' && isNew) this.#findings.push({ severity: 'notes', code, said })
    }
  }

  async #compareRows(source: Schema, target: Schema): Promise<readonly TableResult[]> {
    const { parallel, log, signal, progress } = this.#options
    const from = needed(this.#options.source.digest, 'digest rows')
    const to = needed(this.#options.target.digest, 'digest rows')
    // One session more than chunks at a time: it looks for the next.
    const open = { parallel: parallel + 1, log, signal }
    const opened = await Promise.allSettled([from.openDigest(open), to.openDigest(open)])
    await using _closing = closing(opened)
    const [a, b] = opened
    if (a.status === 'rejected') throw a.reason
    if (b.status === 'rejected') throw b.reason
    const sides = { source: a.value, target: b.value }
    const pairs = await this.#pair(sides, source, target)
    progress.totalItems = pairs.reduce((sum, { rowsEstimate }) => sum + rowsEstimate, 0)
    return await this.#compareAll(this.#work(sides), pairs)
  }

  #work(sides: Sides): Work {
    const { mode, rowsPerSecond, recheckMs, chunkRows, progress } = this.#options
    const share = mode.kind === 'sample' ? mode.share : undefined
    return {
      sides,
      time: this.#time,
      pace: rowsPerSecond === undefined ? undefined : new Pace(rowsPerSecond, this.#time),
      recheckMs,
      repair: this.#repair,
      sample: share === undefined ? undefined : { share, seed: this.#seed ?? '' },
      chunkRows,
      progress,
    }
  }

  /** Tables that both sides have; others are differences of structure. */
  async #pair(sides: Sides, source: Schema, target: Schema): Promise<readonly Pair[]> {
    const { selection, signal } = this.#options
    const there = new Map(target.tables.map((shape) => [JSON.stringify(shape.name), shape]))
    const pairs: Pair[] = []
    for (const shape of source.tables) {
      const other = there.get(JSON.stringify(selection.map(shape.name)))
      if (!other) continue
      const describe = async (side: Digester, own: TableShape) => ({
        shape: own,
        said: await side.describe(own, { signal }),
      })
      const described = await both(describe(sides.source, shape), describe(sides.target, other))
      const pair = pairTables(...described)
      if (pair.uncompared.length > 0) this.#findUncompared(pair)
      pairs.push(pair)
    }
    return pairs
  }

  #findUncompared({ name, uncompared }: Pair): void {
    this.#findings.push({
      severity: 'warns',
      code: 'uncompared',
      said: `${name.join('.')}: ${uncompared.join(', ')} cannot be compared: the types differ`,
    })
  }

  async #compareAll(work: Work, pairs: readonly Pair[]): Promise<readonly TableResult[]> {
    const { parallel, namedMax, signal, progress } = this.#options
    const results: TableResult[] = []
    const begun: Ranges[] = []
    async function* steps(inner: AbortSignal): AsyncGenerator<Step, void, void> {
      for (const pair of pairs) {
        progress.current = pair.name.join('.')
        const index = results.length
        results.push(new TableResult(pair, namedMax))
        if (!pair.walks) {
          yield { index, range: undefined }
          continue
        }
        const ranges = new Ranges(work, results[index] ?? new TableResult(pair, namedMax))
        begun[index] = ranges
        for await (const range of ranges.ranges(inner)) yield { index, range }
      }
    }
    const again: number[] = []
    await eachLimit(steps(signal), parallel, signal, async ({ index, range }, inner) => {
      const result = results[index]
      if (!result) return
      if (range === undefined) return compareBuckets(work, result, inner)
      try {
        await begun[index]?.compare(range, inner)
      } catch (error) {
        if (!(error instanceof Disordered)) throw error
        begun[index]?.end()
        if (!again.includes(index)) again.push(index)
      }
    })
    progress.phase = 'look again at what differs'
    for (const index of again) {
      const first = results[index]
      if (!first) continue
      first.dropped = true
      const anew = new TableResult(unwalked(first.pair), namedMax)
      results[index] = anew
      await compareBuckets(work, anew, signal)
    }
    const left = begun.filter((_ranges, index) => !again.includes(index))
    await eachLimit(left, parallel, signal, (ranges, inner) => ranges.settle(inner))
    return results
  }
}

/** One range of a table, or all of one that has none. */
type Step = { readonly index: number; readonly range: KeyRange | undefined }

/** The whole table is read, without an index. */
function unwalked(pair: Pair): Pair {
  return {
    ...pair,
    walks: false,
    source: { ...pair.source, index: undefined },
    target: { ...pair.target, index: undefined },
  }
}

function isEqual(table: TableVerified): boolean {
  const differing = table.missing + table.extra + table.different
  if (table.more || table.changing > 0 || table.uncompared.length > 0) return false
  return differing === table.repaired
}

function closing(opened: readonly PromiseSettledResult<Digester>[]): AsyncDisposable {
  return {
    [Symbol.asyncDispose]: async () => {
      for (const one of opened) {
        if (one.status === 'fulfilled') await one.value[Symbol.asyncDispose]()
      }
    },
  }
}

function needed<T>(port: T | undefined, doing: string): T {
  if (port !== undefined) return port
  throw new Fault('unsupported', `${doing}: this engine cannot do it yet`)
}
