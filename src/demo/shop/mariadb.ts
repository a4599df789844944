import mysql, { type RowDataPacket } from 'mysql2/promise'
import { createShop, type ShopDatabase, type Statement } from './database.ts'

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
  return createShop({
    run,
    rows,
    clockQuery: 'select cast(unix_timestamp(sysdate(6)) * 1000000 as signed)',
    [Symbol.asyncDispose]: async () => client.destroy(),
  })
}
