/** One line of an order. */
export type Line = {
  readonly product: number
  readonly quantity: number
  readonly priceCents: number
}

/** What order number `n` is: always the same, so that every row can be known afterwards from the numbers alone. */
export type Order = {
  readonly n: number
  readonly customer: string
  readonly lines: readonly Line[]
  readonly totalCents: number
}

export type Product = { readonly id: number; readonly name: string; readonly priceCents: number }

export const productCount = 120
export const firstStock = 1_000_000
/** Order n ships order n - 20; every 97th order cancels the order 50 before it. */
const shippedAfter = 20
const cancelEvery = 97
const cancelledBefore = 50

const customers = [
  "Siobhán O'Brien",
  'Ada Lovelace',
  '李清照',
  'Müller & Söhne',
  'Ana "Nené" Souza',
  'Ngô Bảo Châu',
  'Zoë 🚲 Deliveries',
  'Иван Петров',
]
const wares = ['Tea', 'Lamp', 'Chair', '茶壶', 'Kettle', 'Blanket', 'Crème brûlée', 'Rope \\ Twine']

export function product(id: number): Product {
  const ware = wares[id % wares.length] ?? ''
  return { id, name: `${ware} no. ${id}`, priceCents: 199 + ((id * 7919) % 9000) }
}

export function order(n: number): Order {
  const random = mixer(n)
  const first = random(productCount)
  const lines = Array.from({ length: 1 + random(4) }, (_none, index) => {
    // Steps of less than a quarter of the range never meet.
    const id = 1 + ((first + index * (1 + (n % 25))) % productCount)
    return { product: id, quantity: 1 + random(3), priceCents: product(id).priceCents }
  })
  const totalCents = lines.reduce((sum, line) => sum + line.quantity * line.priceCents, 0)
  return { n, customer: customers[random(customers.length)] ?? '', lines, totalCents }
}

/** The order that order `n`'s transaction marks as shipped, if any. */
export function shippedBy(n: number): number | undefined {
  return n > shippedAfter ? n - shippedAfter : undefined
}

/** The order that order `n`'s transaction cancels, if any: its rows go and its wares return to the shelf. */
export function cancelledBy(n: number): number | undefined {
  return n % cancelEvery === 0 ? n - cancelledBefore : undefined
}

/** Small whole numbers that depend on the seed alone. */
function mixer(seed: number): (below: number) => number {
  let state = Math.imul(seed, 0x9e3779b1) >>> 0
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x85ebca6b) + 0x6d2b79f5) >>> 0
    return ((state ^ (state >>> 13)) >>> 0) % below
  }
}
