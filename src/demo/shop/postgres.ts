import pg from 'pg'
import { createShop, type ShopDatabase, type Statement } from './database.ts'

export async function openPostgresShop(url: string): Promise<ShopDatabase> {
  const client = new pg.Client({ connectionString: url })
  // A server that dies ends the connection: the running query is what reports it.
  client.on('error', () => undefined)
  await client.connect()
  const run = async ({ sql, values }: Statement) => {
    await client.query({ text: numbered(sql), values: [...values] })
  }
  const rows = async <Row extends readonly string[]>(sql: string): Promise<Row[]> => {
    const result = await client.query<Row[]>({ text: sql, rowMode: 'array' })
    return result.rows.map((row) => row.map(String)) as unknown as Row[]
  }
  return createShop({
    run,
    rows,
    clockQuery: 'select (extract(epoch from clock_timestamp()) * 1000000)::bigint',
    [Symbol.asyncDispose]: () => client.end(),
  })
}

/** Question marks to the numbered parameters of PostgreSQL; no statement of the shop has one in a string. */
function numbered(sql: string): string {
  let count = 0
  return sql.replaceAll('?', () => `$${++count}`)
}
