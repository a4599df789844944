import type { Statement } from './database.ts'
import { cancelledBy, firstStock, order, product, productCount, shippedBy } from './orders.ts'

/** The tables of the shop and its products, in SQL that every engine here understands. */
export function openingStatements(): Statement[] {
  const plain = (sql: string) => ({ sql, values: [] })
  const products = Array.from({ length: productCount }, (_none, index) => product(index + 1))
  return [
    plain(
      'create table products (id integer primary key, name varchar(80) not null, price_cents integer not null, stock integer not null)',
    ),
    plain(
      'create table orders (n bigint primary key, customer varchar(80) not null, total_cents integer not null, state varchar(10) not null)',
    ),
    plain(
      'create table order_lines (n bigint not null, line integer not null, product integer not null, quantity integer not null, price_cents integer not null, primary key (n, line))',
    ),
    {
      sql: `insert into products values ${products.map(() => '(?, ?, ?, ?)').join(', ')}`,
      values: products.flatMap(({ id, name, priceCents }) => [id, name, priceCents, firstStock]),
    },
  ]
}

/** What order number `n` does in its transaction. */
export function orderStatements(n: number): Statement[] {
  const { customer, lines, totalCents } = order(n)
  const shipped = shippedBy(n)
  const cancelled = cancelledBy(n)
  return [
    {
      sql: 'insert into orders values (?, ?, ?, ?)',
      values: [n, customer, totalCents, 'placed'],
    },
    {
      sql: `insert into order_lines values ${lines.map(() => '(?, ?, ?, ?, ?)').join(', ')}`,
      values: lines.flatMap((line, index) => [
        n,
        index,
        line.product,
        line.quantity,
        line.priceCents,
      ]),
    },
    ...moveStatements(n, '-'),
    ...(shipped === undefined
      ? []
      : [{ sql: 'update orders set state = ? where n = ?', values: ['shipped', shipped] }]),
    ...(cancelled === undefined ? [] : cancelStatements(cancelled)),
  ]
}

function cancelStatements(n: number): Statement[] {
  return [
    { sql: 'delete from orders where n = ?', values: [n] },
    { sql: 'delete from order_lines where n = ?', values: [n] },
    ...moveStatements(n, '+'),
  ]
}

function moveStatements(n: number, sign: '+' | '-'): Statement[] {
  return order(n).lines.map(({ product: id, quantity }) => ({
    sql: `update products set stock = stock ${sign} ? where id = ?`,
    values: [quantity, id],
  }))
}
