import assert from 'node:assert/strict'
import type { Position } from '#change'
import type { Batch, Transaction } from '#change/batch'
import { beginCopy, everything, openEndpoint } from './postgres-copy.ts'
import { openReader, readUntil } from './postgres-mirror.ts'
import type { PostgresServer } from './servers/postgres.ts'

const signal = AbortSignal.timeout(600_000)
export const settings = {
  wal_level: 'logical',
  max_wal_senders: '10',
  logical_decoding_work_mem: '64kB',
}

/** Publication and slot, as the copy of a link makes them; the position of its rows. */
export async function follow(server: PostgresServer, name = 'test'): Promise<Position> {
  const source = await openEndpoint(server.url)
  const schema = await source.schema.readSchema(everything, { signal })
  await using reader = await beginCopy(source, { tables: schema.tables, follow: name })
  return reader.position ?? assert.fail('no position')
}

/** The transactions up to the one that writes into `over`, changed as is. */
export async function transactionsUntilOver(
  server: PostgresServer,
  options: Parameters<typeof openReader>[1],
): Promise<Transaction[]> {
  await server.query('insert into over default values')
  await using reader = await openReader(server.url, options)
  const all: Transaction[] = []
  await readUntil(reader, (item) => {
    if (item.kind === 'beat') return false
    all.push(...item.transactions)
    return isOver(item)
  })
  return all
}

export function isOver(batch: Batch): boolean {
  return batch.transactions.some((one) =>
    one.changes.some((change) => 'relation' in change && change.relation.name[1] === 'over'),
  )
}

export const over = 'create table over (id bigint generated always as identity primary key)'

/** Each row of a table as JSON of its columns' text. */
export async function contentOf(server: PostgresServer, table: string, columns: readonly string[]) {
  const cells = columns.map((column) => `to_json(${column}::text)`).join(`, `)
  const rows = await server.query<{ row: string[] }>(
    `select json_build_array(${cells}) as row from ${table}`,
  )
  return rows.map(({ row }) => JSON.stringify(row)).sort()
}
