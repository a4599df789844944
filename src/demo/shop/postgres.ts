import pg from 'pg'
import type { ShopDatabase, Statement } from './database.ts'
import type { Rows } from './books.ts'

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
  return {
    run: async (statements) => {
      for (const statement of statements) await run(statement)
    },
    transact: async (statements) => {
      await client.query('begin')
      for (const statement of statements) await run(statement)
      await client.query('commit')
    },
    deleteAllOrders: async () => {
      const [now] = await rows<[string]>(
        'select (extract(epoch from clock_timestamp()) * 1000000)::bigint',
      )
      const gone = await rows<[string]>('delete from orders returning n')
      const newest = Math.max(0, ...gone.map(([n]) => Number(n)))
      return { beforeUs: BigInt(now?.[0] ?? 0), deleted: gone.length, newest }
    },
    readAll: async (): Promise<Rows> => ({
      orders: await rows('select n, customer, total_cents, state from orders'),
      lines: await rows('select n, line, product, quantity, price_cents from order_lines'),
      products: await rows('select id, name, price_cents, stock from products'),
    }),
    [Symbol.asyncDispose]: () => client.end(),
  }
}

/** Question marks to the numbered parameters of PostgreSQL; no statement of the shop has one in a string. */
function numbered(sql: string): string {
  let count = 0
  return sql.replaceAll('?', () => `$${++count}`)
}
