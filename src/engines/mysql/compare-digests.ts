import { tasks } from '#base/tasks'
import type { BaseFacts, Check } from '#engines'
import { readRows } from './base.ts'
import { type Column, readCatalog, selectRows, type Table } from './catalog.ts'
import { digestedCount, formatDigest, sumOf } from './digests.ts'
import { type Flavor, parseFlavor } from './flavor.ts'
import type { StoredTable } from './layout.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { RowKernel } from './row-kernel.ts'
import { quoteNames } from './sql.ts'
import { endsMoved, sourceOf } from './target-version.ts'

/** So many tables that differ are named. */
const namedMax = 5

type Compared = { rows: bigint; equal: number; readonly differ: string[]; readonly left: string[] }

/**
 * Reads every row of a server that a base was just loaded into, and that nobody else uses, and compares each table with
 * what was recorded while the base was taken. Returns undefined for a base that recorded nothing.
 */
export async function compareDigests(
  endpoint: Endpoint,
  base: BaseFacts,
  tables: readonly StoredTable[],
  options: { readonly parallel: number; readonly signal: AbortSignal },
): Promise<Check | undefined> {
  const { signal } = options
  const recorded = tables.filter(({ files }) => files.some(({ digest }) => digest !== undefined))
  if (recorded.length === 0) return undefined
  await using session = await Session.open(endpoint, { signal })
  const version = await session.one('SELECT @@global.version', { signal })
  const target = parseFlavor(version?.[0] ?? '')
  const catalog = await readCatalog(session, target, signal)
  const places = new Map(catalog.tables.map((table) => [placeOf(table), table]))
  const done: Compared = { rows: 0n, equal: 0, differ: [], left: [] }
  const source = sourceOf(base)
  const jobs = [...recorded]
  const work = async (inner: AbortSignal) => {
    await using reader = await openReader(endpoint, inner)
    for (let table = jobs.shift(); table; table = jobs.shift()) {
      if (table.versioned && endsMoved(source, target)) {
        done.left.push(
          `${placeOf(table)} keeps its history, whose ends ${target.version} tells differently`,
        )
        continue
      }
      const said = await compareTable(reader, table, places.get(placeOf(table)), done, source)
      if (said === undefined) done.equal += 1
      else done.differ.push(`${placeOf(table)}: ${said}`)
    }
  }
  await tasks(signal, async (t) => {
    const width = Math.min(options.parallel, jobs.length)
    await Promise.all(Array.from({ length: width }, () => t.run(work)))
  })
  return tell(done)
}

function tell({ rows, equal, differ, left }: Compared): Check {
  const name = 'rows compared'
  const more = left.length > 0 ? `; not compared: ${left.join('; ')}` : ''
  if (differ.length === 0) {
    const said = `${equal} tables with ${rows} rows are as they were when the base was taken${more}`
    return { name, ok: true, said }
  }
  const named = differ.slice(0, namedMax).join('; ')
  const others = differ.length > namedMax ? ` and ${differ.length - namedMax} more` : ''
  const said = `${differ.length} of ${differ.length + equal} tables differ from the base: ${named}${others}${more}`
  return { name, ok: false, said }
}

function placeOf(table: { readonly database: string; readonly name: string }): string {
  return quoteNames(table.database, table.name)
}

type Reader = {
  readonly session: Session
  readonly kernel: RowKernel
  readonly signal: AbortSignal
}

/** A session that is told what the readers of a base are told: the same value has the same text. */
async function openReader(
  endpoint: Endpoint,
  signal: AbortSignal,
): Promise<Reader & AsyncDisposable> {
  const session = await Session.open(endpoint, { signal })
  const settings = `sql_mode = '', time_zone = '+00:00', character_set_results = NULL`
  await session.query(`SET SESSION ${settings}`, { signal })
  const kernel = new RowKernel()
  return { session, kernel, signal, [Symbol.asyncDispose]: () => session[Symbol.asyncDispose]() }
}

/** Tells how a table differs from the stored one; undefined when it does not. */
async function compareTable(
  reader: Reader,
  stored: StoredTable,
  found: Table | undefined,
  done: Compared,
  source: Flavor,
): Promise<string | undefined> {
  if (!found) return 'it is not there'
  const columns: Column[] = []
  for (const { name } of stored.columns) {
    const column = found.columns.find((one) => one.name === name)
    if (!column) return `it has no column ${name}`
    columns.push(column)
  }
  const counted = { rows: 0, bytes: 0, digest: 0n, digested: digestedCount(stored.columns, source) }
  const sql = selectRows({ ...found, columns, versioned: stored.versioned }, undefined)
  const rows = readRows(reader, sql, counted, reader.signal)
  for await (const _ of rows) reader.signal.throwIfAborted()
  const wanted = sumOf(stored.files)
  const digest = formatDigest(counted.digest)
  done.rows += BigInt(counted.rows)
  if (counted.rows === wanted.rows && digest === wanted.digest) return undefined
  return `${counted.rows} rows of digest ${digest}, the base has ${wanted.rows} of ${wanted.digest}`
}
