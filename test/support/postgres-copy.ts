import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import type { CopyReader, CopyWriter } from '#change/copy'
import type { Schema, Selection, Stage, TableShape } from '#change/schema'
import { PostgresRows } from '../../src/engines/postgres/rows.ts'
import { PostgresSchema } from '../../src/engines/postgres/schema.ts'
import { parseAddress, openSession } from '../../src/engines/postgres/connection.ts'
import { readFacts } from '../../src/engines/postgres/facts.ts'

export const everything: Selection = { accepts: () => true, map: (name) => name, accounts: false }

/** The ports of one endpoint for schema and rows. */
export type Endpoint = { readonly schema: PostgresSchema; readonly rows: PostgresRows }

export async function openEndpoint(url: string): Promise<Endpoint> {
  const signal = AbortSignal.timeout(600_000)
  const address = parseAddress(url)
  await using session = await openSession(address, { signal })
  const facts = await readFacts(session, signal)
  return { schema: new PostgresSchema(address, facts), rows: new PostgresRows(address, facts) }
}

export async function makeStage(target: Endpoint, schema: Schema, stage: Stage): Promise<void> {
  await target.schema.makeObjects(
    schema.objects.filter((object) => object.stage === stage),
    {
      signal: AbortSignal.timeout(600_000),
      progress: createProgress('make'),
      onMade: () => undefined,
    },
  )
}

type Copy = {
  readonly tables: readonly TableShape[]
  readonly chunkBytes?: number | undefined
  readonly parallel?: number | undefined
  readonly follow?: string | undefined
}

export async function beginCopy(source: Endpoint, copy: Copy): Promise<CopyReader> {
  return source.rows.beginCopy({
    tables: copy.tables,
    parallel: copy.parallel ?? 2,
    follow: copy.follow,
    log: silentLog,
    signal: AbortSignal.timeout(600_000),
  })
}

export async function openCopy(target: Endpoint, run = 0): Promise<CopyWriter> {
  const signal = AbortSignal.timeout(600_000)
  return target.rows.openCopy({ link: 'test', run, parallel: 2, log: silentLog, signal })
}

/** Copies what is not marked yet, a table after the other; returns how many rows each brought. */
export async function copyAll(
  reader: CopyReader,
  writer: CopyWriter,
  copy: Copy,
): Promise<readonly bigint[]> {
  const signal = AbortSignal.timeout(600_000)
  const there = new Set((await writer.loaded({ signal })).map((one) => `${one.table}:${one.index}`))
  const counts: bigint[] = []
  for (const [index, table] of copy.tables.entries()) {
    let rows = 0n
    const chunks = await reader.plan(table, {
      index,
      chunkBytes: copy.chunkBytes ?? 1 << 20,
      signal,
    })
    for (const chunk of chunks) {
      if (there.has(`${index}:${chunk.index}`)) continue
      const encoding = reader.encodings(table)[0] ?? 'pg/copy-text'
      const options = { encoding, signal }
      rows += await writer.load(table, chunk, reader.read(table, chunk, options), options)
    }
    counts.push(rows)
  }
  return counts
}

/** All that a link does: objects, rows, indexes, the rest. */
export async function migrateAll(
  source: Endpoint,
  target: Endpoint,
  selection: Selection = everything,
): Promise<Schema> {
  const signal = AbortSignal.timeout(600_000)
  const schema = await source.schema.readSchema(selection, { signal })
  await makeStage(target, schema, 'rows')
  await using reader = await beginCopy(source, schema)
  await using writer = await openCopy(target)
  await copyAll(reader, writer, schema)
  await makeStage(target, schema, 'table')
  await makeStage(target, schema, 'end')
  await writer.finish(schema.tables, { signal })
  return schema
}
