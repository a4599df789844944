import {
  cancelledBy,
  firstStock,
  order,
  product,
  productCount,
  shippedBy,
  type Order,
} from './orders.ts'

/** All rows of the shop, each table as lines of text by their keys. */
export type Books = {
  readonly orders: ReadonlyMap<string, string>
  readonly lines: ReadonlyMap<string, string>
  readonly products: ReadonlyMap<string, string>
}

/** The rows as a server returns them: everything as text. */
export type Rows = {
  readonly orders: readonly (readonly [n: string, customer: string, total: string, state: string])[]
  readonly lines: readonly (readonly [
    n: string,
    line: string,
    product: string,
    quantity: string,
    price: string,
  ])[]
  readonly products: readonly (readonly [id: string, name: string, price: string, stock: string])[]
}

/**
 * What the shop holds after its first `count` transactions; `mistakeAfter` says behind which of them somebody deleted
 * all orders.
 */
export function expectedBooks(count: number, mistakeAfter?: number): Books {
  const orders = new Map<string, string>()
  const lines = new Map<string, string>()
  const stock = new Map<number, number>()
  for (let n = 1; n <= count; n++) {
    transact(n, orders, lines, stock)
    if (n === mistakeAfter) orders.clear()
  }
  const products = new Map<string, string>()
  for (let id = 1; id <= productCount; id++) {
    const { name, priceCents } = product(id)
    products.set(String(id), [name, priceCents, firstStock + (stock.get(id) ?? 0)].join('|'))
  }
  return { orders, lines, products }
}

function transact(
  n: number,
  orders: Map<string, string>,
  lines: Map<string, string>,
  stock: Map<number, number>,
): void {
  const placed = order(n)
  orders.set(String(n), orderText(placed, 'placed'))
  move(placed, -1, stock)
  for (const [index, line] of placed.lines.entries()) {
    const { product: id, quantity, priceCents } = line
    lines.set(`${n}/${index}`, [id, quantity, priceCents].join('|'))
  }
  const shipped = shippedBy(n)
  if (shipped !== undefined && orders.has(String(shipped))) {
    orders.set(String(shipped), orderText(order(shipped), 'shipped'))
  }
  const cancelled = cancelledBy(n)
  if (cancelled !== undefined) {
    const gone = order(cancelled)
    orders.delete(String(cancelled))
    for (const index of gone.lines.keys()) lines.delete(`${cancelled}/${index}`)
    move(gone, 1, stock)
  }
}

function orderText({ customer, totalCents }: Order, state: string): string {
  return [customer, totalCents, state].join('|')
}

function move(moved: Order, sign: 1 | -1, stock: Map<number, number>): void {
  for (const line of moved.lines) {
    stock.set(line.product, (stock.get(line.product) ?? 0) + sign * line.quantity)
  }
}

/** A server's rows, in the same form. */
export function actualBooks(rows: Rows): Books {
  return {
    orders: new Map(rows.orders.map(([n, ...cells]) => [n, cells.join('|')])),
    lines: new Map(rows.lines.map(([n, line, ...cells]) => [`${n}/${line}`, cells.join('|')])),
    products: new Map(rows.products.map(([id, ...cells]) => [id, cells.join('|')])),
  }
}

/** How many transactions the rows show: no later transaction removes the lines of the newest order. */
export function countOf(books: Books): number {
  let count = 0
  for (const key of books.lines.keys()) count = Math.max(count, Number.parseInt(key, 10))
  return count
}

export type Difference = {
  readonly table: keyof Books
  readonly key: string
  readonly expected: string | undefined
  readonly actual: string | undefined
}

/** Every row that is missing, too much, or not as it should be. */
export function compareBooks(expected: Books, actual: Books): Difference[] {
  const tables = ['orders', 'lines', 'products'] as const
  return tables.flatMap((table) => {
    const keys = new Set([...expected[table].keys(), ...actual[table].keys()])
    return [...keys]
      .map((key) => ({
        table,
        key,
        expected: expected[table].get(key),
        actual: actual[table].get(key),
      }))
      .filter((pair) => pair.expected !== pair.actual)
  })
}

export function rowCount(books: Books): number {
  return books.orders.size + books.lines.size + books.products.size
}
