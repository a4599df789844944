import mysql, { type RowDataPacket } from 'mysql2/promise'
import type { ShopDatabase, Statement } from './database.ts'
import type { Rows } from './books.ts'

export async function openMariadbShop(url: string): Promise<ShopDatabase> {
  const { hostname, port, username, password, pathname } = new URL(url)
  const client = await mysql.createConnection({
    host: hostname,
    port: Number(port),
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: decodeURIComponent(pathname.slice(1)),
    charset: 'utf8mb4',
    rowsAsArray: true,
  })
  // A server that dies ends the connection: the running query is what reports it.
  client.on('error', () => undefined)
  const run = async ({ sql, values }: Statement) => {
    await client.query(sql, [...values])
  }
  const rows = async <Row extends readonly string[]>(sql: string): Promise<Row[]> => {
    const [found] = await client.query<RowDataPacket[][]>(sql)
    return found.map((row) => row.map(String)) as unknown as Row[]
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
        'select cast(unix_timestamp(sysdate(6)) * 1000000 as signed)',
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
    [Symbol.asyncDispose]: async () => client.destroy(),
  }
}
