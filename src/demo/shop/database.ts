import type { Rows } from './books.ts'

/** One statement, its values beside it. */
export type Statement = { readonly sql: string; readonly values: readonly (string | number)[] }

export type Mistake = {
  readonly beforeUs: bigint
  readonly deleted: number
  readonly newest: number
}

/** What the shop needs of a database: a connection that speaks one dialect. */
export interface ShopDatabase extends AsyncDisposable {
  /** Runs statements in one transaction; ends when the server has said that it is committed. */
  transact(statements: readonly Statement[]): Promise<void>
  /** Runs statements one by one, each on its own. */
  run(statements: readonly Statement[]): Promise<void>
  /**
   * The mistake: `DELETE FROM orders`, with no WHERE. Returns the server's own time just before it, in
   * microseconds since 1970, how many orders it took, and the newest of them.
   */
  deleteAllOrders(): Promise<Mistake>
  /** All rows of the shop. */
  readAll(): Promise<Rows>
}

/** Opens the shop's database by its URL. */
export async function openShopDatabase(url: string): Promise<ShopDatabase> {
  if (url.startsWith('postgres')) {
    const { openPostgresShop } = await import('./postgres.ts')
    return openPostgresShop(url)
  }
  const { openMariadbShop } = await import('./mariadb.ts')
  return openMariadbShop(url)
}

/** One connection, as the shop's own words are run on it. */
export type ShopDriver = AsyncDisposable & {
  readonly run: (statement: Statement) => Promise<void>
  /** Every value as text. */
  readonly rows: <Row extends readonly string[]>(sql: string) => Promise<Row[]>
  /** The server's clock in microseconds since 1970, as a query. */
  readonly clockQuery: string
}

/** The shop on a connection: the same statements for every database. */
export function createShop({ run, rows, clockQuery, ...rest }: ShopDriver): ShopDatabase {
  const all = async (statements: readonly Statement[]) => {
    for (const statement of statements) await run(statement)
  }
  return {
    run: all,
    transact: async (statements) => {
      await run({ sql: 'begin', values: [] })
      await all(statements)
      await run({ sql: 'commit', values: [] })
    },
    deleteAllOrders: async () => {
      const [now] = await rows<[string]>(clockQuery)
      const gone = await rows<[string]>('delete from orders returning n')
      const newest = Math.max(0, ...gone.map(([n]) => Number(n)))
      return { beforeUs: BigInt(now?.[0] ?? 0), deleted: gone.length, newest }
    },
    readAll: async () => ({
      orders: await rows('select n, customer, total_cents, state from orders'),
      lines: await rows('select n, line, product, quantity, price_cents from order_lines'),
      products: await rows('select id, name, price_cents, stock from products'),
    }),
    [Symbol.asyncDispose]: () => rest[Symbol.asyncDispose](),
  }
}
