import { Fault, isAbort, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import { defaultRetry } from '#base/retry'
import { tasks } from '#base/tasks'
import type { Time } from '#base/time'
import type {
  Chunk,
  CopyReader,
  CopySource,
  CopyTarget,
  CopyWriter,
  Encoding,
  LoadedChunk,
  RowBlock,
} from '#change/copy'
import type { SchemaSource, SchemaTarget, Selection, TableShape } from '#change/schema'
import { closeAfterFailure, closing } from './closing.ts'
import { CopyMeter } from './meter.ts'
import { CopySchedule, type Job, type ScheduledTable } from './schedule.ts'
import { makeTableObjects, shapesDiffer } from './schema.ts'
import { formatName } from './selection.ts'
import { settle, type Settled } from './settle.ts'
import type { LinkStore, Run } from './state.ts'
import type { Throttle } from './throttle.ts'

/** A chunk is one transaction on the target: small enough to be done again, large enough to cost nothing. */
const chunkBytesMin = 64 * 2 ** 20
/** Above this many chunks of one table they grow. */
const chunksPerTableMax = 10_000
const triesMax = 8

export type CopyWork = {
  readonly source: { readonly schema: SchemaSource; readonly rows: CopySource }
  readonly target: { readonly schema: SchemaTarget; readonly rows: CopyTarget }
  readonly store: LinkStore
  readonly link: string
  /** Changes will be read behind it: under the link's name. */
  readonly followed: boolean
  readonly selection: Selection
  /** The `table` objects are made too. */
  readonly makes: boolean
  readonly convert: boolean
  readonly parallel: number
  readonly chunkBytes?: number | undefined
  readonly throttle: Throttle | undefined
  readonly progress: Progress
  readonly time: Time
  readonly log: Log
  readonly signal: AbortSignal
}

/**
 * Carries all rows of the recorded tables, each chunk once, and makes each table's own objects behind its rows. A lost target
 * is opened again below the same reader, so that the copy stays at one position; only a lost source begins another run.
 */
export async function copyRows(work: CopyWork): Promise<void> {
  const meter = new CopyMeter(work.progress, work.time, work.store.tables())
  let reader: SafeReader | undefined
  let tries = 0
  try {
    for (;;) {
      const loadedBefore = meter.chunks
      try {
        reader ??= await openReader(work)
        await new Copy(work, reader, meter).run()
        return
      } catch (error) {
        if (!mayGoOn(error) || work.signal.aborted) throw error
        tries = meter.chunks > loadedBefore ? 1 : tries + 1
        if (tries >= triesMax) throw error
        if (reader?.broken) {
          await reader.close()
          reader = undefined
        }
        const delayMs = Math.min(defaultRetry.delayMaxMs, defaultRetry.firstDelayMs * 4 ** tries)
        work.log.warn(`goes on with the copy in ${delayMs} ms: ${error.message}`, {
          code: error.code,
        })
        await work.time.sleep(delayMs, work.signal)
      }
    }
  } finally {
    await reader?.close()
  }
}

/** A mark that came behind our back (`conflict`): a session of the process before us committed late. */
function mayGoOn(error: unknown): error is Fault {
  return isFault(error) && (error.recovery === 'retry' || error.code === 'conflict')
}

/** A reader, its run, and whether it was the one that failed. */
type SafeReader = {
  readonly reader: CopyReader
  readonly run: Run
  broken: boolean
  close(): Promise<void>
}

async function openReader(work: CopyWork): Promise<SafeReader> {
  const { source, store, link, followed, selection, parallel, signal, log } = work
  const planned = store.tables().map(({ shape }) => shape)
  const reader = await source.rows.beginCopy({
    tables: planned,
    parallel,
    follow: followed ? link : undefined,
    log,
    signal,
  })
  let closed = false
  const close = async () => {
    if (closed) return
    closed = true
    // Nothing is lost with it: it only read.
    await closeAfterFailure(reader, log)
  }
  try {
    // What was changed between the plan and the position would not fit the rows.
    const schema = await source.schema.readSchema(selection, { signal })
    const changed = shapesDiffer(planned, schema.tables)
    if (changed !== undefined) {
      throw new Fault('source-changed', `copy rows: ${changed} since the copy was planned`, {
        hint: 'Begin anew: remove the state directory, and what was made on the target.',
        recovery: 'stop',
      })
    }
    if (work.makes) store.replaceUnmade(schema.objects)
    const run = store.beginRun(reader.position, reader.stamp)
    const at =
      reader.position === undefined ? 'the source keeps no log' : `at ${reader.position.at}`
    log.info(`reads rows, ${at}`, { run: run.run })
    return { reader, run, broken: false, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** One pass over what is not on the target yet, with one reader and one writer. */
class Copy {
  readonly #work: CopyWork
  readonly #safe: SafeReader
  readonly #meter: CopyMeter
  readonly #shapes: readonly TableShape[]
  /** Resolved when a job has ended: workers without one look again. */
  #ended = Promise.withResolvers<void>()

  constructor(work: CopyWork, safe: SafeReader, meter: CopyMeter) {
    this.#work = work
    this.#safe = safe
    this.#meter = meter
    this.#shapes = work.store.tables().map(({ shape }) => shape)
  }

  async run(): Promise<void> {
    const { target, link, parallel, signal, log } = this.#work
    const { run } = this.#safe.run
    const writer = await target.rows.openCopy({ link, run, parallel, log, signal })
    await closing(writer, log, () => this.#carry(writer))
  }

  async #carry(writer: CopyWriter): Promise<void> {
    const { store, parallel, signal } = this.#work
    const tables = await this.#settle(writer)
    const schedule = new CopySchedule(tables, { smallBytes: this.#chunkBytes(0) })
    await tasks(signal, async (t) => {
      for (let index = 0; index < parallel; index++) {
        t.run((inner) => this.#worker(schedule, writer, inner)).catch(() => undefined)
      }
    })
    const brought = await writer.loaded({ signal })
    store.useRuns(brought)
  }

  /** Compares the marks on the target with the plan: see SPEC.md. */
  async #settle(writer: CopyWriter): Promise<ScheduledTable[]> {
    const { store, signal, log } = this.#work
    const byTable = Map.groupBy(await writer.loaded({ signal }), ({ table }) => table)
    const stamps = new Map(store.runs().map(({ run, stamp }) => [run, stamp]))
    const scheduled: ScheduledTable[] = []
    for (const [index, { shape, chunks, result }] of store.tables().entries()) {
      const marks = byTable.get(index) ?? []
      const byKey = this.#safe.reader.chunksByKey(shape) && shape.keys.some((key) => key.identifies)
      const stampOf = (run: number) => stamps.get(run)
      const planned = chunks?.map((chunk) => chunk.index)
      const stamp = this.#safe.run.stamp
      const settled = settle({ planned, marks, byKey, stampOf, stamp })
      const made = result !== undefined && settled.kind === 'whole'
      if (settled.kind === 'anew') {
        log.warn(`begins ${formatName(shape.name)} anew: its rows are not of one moment any more`)
        await writer.clear(shape, { index, signal })
        store.forgetPlan(index)
      }
      this.#findMixed(shape, settled)
      const missing = settled.kind === 'anew' ? undefined : withoutMarks(chunks, marks)
      this.#meter.settled(index, settled.kind === 'anew' ? [] : marks, chunks)
      scheduled.push({ index, sizeBytes: shape.sizeBytes, chunks: missing, made })
    }
    return scheduled
  }

  #findMixed(shape: TableShape, settled: Settled): void {
    // Changes make one moment of several.
    if (settled.kind !== 'goes-on' || !settled.mixed || this.#work.followed) return
    const name = formatName(shape.name)
    this.#work.store.addFinding({
      severity: 'warns',
      code: 'mixed-positions',
      said: `the copy of ${name} was interrupted and went on at a later position: what was written to it meanwhile may be missing or old on the target`,
      mend: `compare ${name} on both sides, or copy it again while nobody writes`,
    })
  }

  async #worker(schedule: CopySchedule, writer: CopyWriter, signal: AbortSignal): Promise<void> {
    while (!schedule.over) {
      signal.throwIfAborted()
      const ended = this.#ended.promise
      const job = schedule.take()
      if (job) {
        await this.#perform(job, { schedule, writer, signal })
        this.#ended.resolve()
        this.#ended = Promise.withResolvers()
      } else {
        await orAborted(ended, signal)
      }
    }
  }

  async #perform(job: Job, parts: Parts): Promise<void> {
    switch (job.kind) {
      case 'plan':
        return this.#plan(job.tables, parts)
      case 'load':
        await this.#load(job.chunk, parts)
        parts.schedule.loaded(job.chunk)
        return
      case 'make':
        await this.#make(job.table, parts.signal)
        return parts.schedule.made()
      default:
        return job satisfies never
    }
  }

  async #plan(tables: readonly number[], { schedule, signal }: Parts): Promise<void> {
    const plans: { index: number; chunks: readonly Chunk[] }[] = []
    for (const index of tables) {
      const shape = this.#shape(index)
      const chunkBytes = this.#chunkBytes(shape.sizeBytes)
      const chunks = await this.#reading(signal, () =>
        this.#safe.reader.plan(shape, { index, chunkBytes, signal }),
      )
      plans.push({ index, chunks })
    }
    this.#work.store.planTables(plans)
    schedule.planned(plans)
  }

  async #load(chunk: Chunk, { writer, signal }: Parts): Promise<void> {
    const shape = this.#shape(chunk.table)
    const { reader } = this.#safe
    const encoding = commonEncoding(shape, reader.encodings(shape), writer.encodings(shape))
    const { log, throttle } = this.#work
    const facts = { table: formatName(shape.name), chunk: chunk.index }
    log.debug('loads a chunk', facts)
    const count = this.#meter.begin(chunk)
    const blocks = this.#guarded(reader.read(shape, chunk, { encoding, signal }), signal)
    const slowed = throttle?.slow(blocks, signal) ?? blocks
    const loaded = await writer.load(shape, chunk, count.through(slowed), { encoding, signal })
    if (loaded !== count.rows) {
      // The mark must not make a later run believe in it.
      await writer.clear(shape, { index: chunk.table, signal })
      this.#work.store.forgetPlan(chunk.table)
      const name = formatName(shape.name)
      throw new Fault(
        'different',
        `copy ${name}: ${count.rows} rows were read of chunk ${chunk.index}, and ${loaded} are on the target`,
        { hint: 'The table was emptied on the target; --resume copies it again.' },
      )
    }
    count.end()
    log.debug('loaded a chunk', { ...facts, rows: loaded })
  }

  async #make(index: number, signal: AbortSignal): Promise<void> {
    const { store, makes, convert, target, progress, log } = this.#work
    if (makes) {
      const { name } = this.#shape(index)
      await makeTableObjects(name, { store, target: target.schema, convert, progress, log, signal })
    }
    store.finishTable(index, this.#meter.finish(index))
  }

  #chunkBytes(tableBytes: number): number {
    const least = this.#work.chunkBytes ?? chunkBytesMin
    return Math.max(least, Math.ceil(tableBytes / chunksPerTableMax))
  }

  #shape(index: number): TableShape {
    const shape = this.#shapes[index]
    if (shape) return shape
    throw new Error(`broken invariant: table ${index} is in the plan`)
  }

  /** The same blocks; when they fail by themselves it was the source. */
  async *#guarded(blocks: AsyncIterable<RowBlock>, signal: AbortSignal): AsyncIterable<RowBlock> {
    const iterator = blocks[Symbol.asyncIterator]()
    try {
      for (;;) {
        const next = await this.#reading(signal, () => iterator.next())
        if (next.done) return
        yield next.value
      }
    } finally {
      await iterator.return?.()
    }
  }

  async #reading<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (!signal.aborted && !isAbort(error)) this.#safe.broken = true
      throw error
    }
  }
}

type Parts = {
  readonly schedule: CopySchedule
  readonly writer: CopyWriter
  readonly signal: AbortSignal
}

function withoutMarks(
  chunks: readonly Chunk[] | undefined,
  marks: readonly LoadedChunk[],
): readonly Chunk[] | undefined {
  const there = new Set(marks.map((mark) => mark.index))
  return chunks?.filter((chunk) => !there.has(chunk.index))
}

function commonEncoding(
  shape: TableShape,
  offered: readonly Encoding[],
  taken: readonly Encoding[],
): Encoding {
  const common = offered.find((encoding) => taken.includes(encoding))
  if (common) return common
  const said = `copy ${formatName(shape.name)}: the source writes rows as ${offered.join(', ')}, the target takes ${taken.join(', ')}`
  throw new Fault('unsupported', said, { hint: 'Leave the table out with --exclude.' })
}

/** Waits for a promise that the group keeps; throws the signal's reason when it aborts. */
async function orAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const aborted = Promise.withResolvers<void>()
  const wake = () => aborted.resolve()
  signal.addEventListener('abort', wake, { once: true })
  await Promise.race([promise, aborted.promise])
  signal.removeEventListener('abort', wake)
  signal.throwIfAborted()
}
