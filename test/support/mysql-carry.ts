import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import type { Chunk } from '#change/copy'
import type { Schema, SchemaObject, Selection, Stage } from '#change/schema'
import type { Engine } from '#engines'
import { mysql } from '../../src/engines/mysql/mysql.ts'

export type CarryOptions = {
  readonly selection?: Partial<Selection> | undefined
  readonly chunkBytes?: number | undefined
  readonly parallel?: number | undefined
  readonly link?: string | undefined
  readonly run?: number | undefined
  readonly convert?: boolean | undefined
  /** Called when a chunk is on the target. */
  readonly onChunk?: (() => void | Promise<void>) | undefined
}

export const everything: Selection = {
  accepts: () => true,
  map: (name) => name,
  accounts: false,
}

export const limit = () => AbortSignal.timeout(600_000)

export type Carrier = {
  readonly schema: NonNullable<Engine['schema']>
  readonly rows: NonNullable<Engine['rows']>
} & AsyncDisposable

export async function openEngine(url: string): Promise<Carrier> {
  const engine = await mysql.open(url, { signal: limit(), log: silentLog })
  const { schema, rows } = engine
  if (!schema || !rows) throw new Error('the engine carries nothing')
  return { schema, rows, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() }
}

/** Schema and rows from one server to another, as a link does it; returns the schema. */
export async function carry(from: string, to: string, options: CarryOptions = {}): Promise<Schema> {
  const signal = limit()
  await using source = await openEngine(from)
  await using target = await openEngine(to)
  const schema = await source.schema.readSchema({ ...everything, ...options.selection }, { signal })
  const make = (stage: Stage, only: (object: SchemaObject) => boolean = () => true) =>
    target.schema.makeObjects(
      schema.objects.filter((object) => object.stage === stage).filter(only),
      {
        signal,
        progress: createProgress('make'),
        onMade: () => undefined,
        convert: options.convert,
      },
    )
  await make('rows')
  const { parallel = 2, link = 'test', run = 1 } = options
  const common = { parallel, log: silentLog, signal }
  await using reader = await source.rows.beginCopy({
    ...common,
    tables: schema.tables,
    follow: undefined,
  })
  await using writer = await target.rows.openCopy({ ...common, link, run })
  const there = await writer.loaded({ signal })
  for (const [index, table] of schema.tables.entries()) {
    const chunkBytes = options.chunkBytes ?? 64 * 1024 * 1024
    const chunks = await reader.plan(table, { index, chunkBytes, signal })
    const left = chunks.filter(
      (chunk) => !there.some((one) => one.table === index && one.index === chunk.index),
    )
    const one = async (chunk: Chunk) => {
      const encoding = 'mysql/text-row' as const
      const rows = reader.read(table, chunk, { encoding, signal })
      await writer.load(table, chunk, rows, { encoding, signal })
      await options.onChunk?.()
    }
    for (let at = 0; at < left.length; at += parallel) {
      await Promise.all(left.slice(at, at + parallel).map(one))
    }
    await make('table', (object) => object.table?.join('.') === table.name.join('.'))
  }
  await make('end')
  await writer.finish(schema.tables, { signal })
  return schema
}
