import assert from 'node:assert/strict'
import { test } from 'node:test'
import { actualBooks, compareBooks, countOf, expectedBooks, type Rows } from './books.ts'
import { cancelledBy, order, productCount } from './orders.ts'

test('order() is the same every time, and its lines name different products', () => {
  for (let n = 1; n <= 2000; n++) {
    const { lines, totalCents } = order(n)
    assert.deepEqual(order(n).lines, lines)
    const ids = lines.map((line) => line.product)
    assert.equal(new Set(ids).size, ids.length, `order ${n}`)
    assert.ok(ids.every((id) => id >= 1 && id <= productCount))
    assert.ok(totalCents > 0)
  }
})

test('expectedBooks() keeps the sum of wares: what is not on the shelf is in an order', () => {
  const { lines, products } = expectedBooks(1000)
  const sold = [...lines.values()].reduce((sum, cells) => sum + Number(cells.split('|')[1]), 0)
  const left = [...products.values()].reduce((sum, cells) => sum + Number(cells.split('|')[2]), 0)
  assert.equal(sold + left, productCount * 1_000_000)
  assert.equal(cancelledBy(97), 47)
  assert.equal(lines.has('47/0'), false)
})

test('countOf() finds how many transactions the rows show, also after the mistake', () => {
  for (const count of [0, 1, 96, 97, 98, 500]) {
    assert.equal(countOf(expectedBooks(count)), count)
    assert.equal(countOf(expectedBooks(count, 60)), count)
  }
  assert.equal(expectedBooks(100, 60).orders.size, 40)
})

test('compareBooks() names every row that differs', () => {
  const expected = expectedBooks(30)
  assert.deepEqual(compareBooks(expected, expectedBooks(30)), [])
  const rows: Rows = {
    orders: [...expected.orders].map(([n, text]) => {
      const [customer = '', total = '', state = ''] = text.split('|')
      return [n, n === '3' ? 'somebody' : customer, total, state]
    }),
    lines: [...expected.lines].slice(1).map(([key, text]) => {
      const [n = '', line = ''] = key.split('/')
      const [id = '', quantity = '', price = ''] = text.split('|')
      return [n, line, id, quantity, price]
    }),
    products: [...expected.products].map(([id, text]) => {
      const [name = '', price = '', stock = ''] = text.split('|')
      return [id, name, price, stock]
    }),
  }
  const found = compareBooks(expected, actualBooks(rows))
  assert.deepEqual(
    found.map(({ table, key }) => `${table} ${key}`),
    ['orders 3', 'lines 1/0'],
  )
  assert.equal(compareBooks(expected, expectedBooks(29)).length > 0, true)
})
