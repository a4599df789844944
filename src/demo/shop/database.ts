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
