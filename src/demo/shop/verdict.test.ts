import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Books, expectedBooks, type Rows } from './books.ts'
import { parseOracle, type SeenCommit } from './oracle.ts'
import { judgeLatest, judgeMoment } from './verdict.ts'

/** Commits of 10 ms each, from second 1 on. */
const seen: readonly SeenCommit[] = Array.from({ length: 300 }, (_none, index) => ({
  n: index + 1,
  startedMs: 1000 + index * 10,
  returnedMs: 1005 + index * 10,
}))

test('judgeMoment() holds for exactly the commits before the moment', () => {
  const boundMs = 1000 + 100 * 10
  assert.equal(judgeMoment(rowsOf(expectedBooks(100)), seen, boundMs).held, true)
  assert.equal(judgeMoment(rowsOf(expectedBooks(99)), seen, boundMs).held, false)
  assert.equal(judgeMoment(rowsOf(expectedBooks(102)), seen, boundMs).held, false)
  const during = 1000 + 100 * 10 + 4
  for (const count of [100, 101]) {
    const verdict = judgeMoment(rowsOf(expectedBooks(count)), seen, during)
    assert.equal(verdict.held, true, 'a commit under way at that moment may be in or out')
    assert.equal(verdict.transactions, count)
  }
})

test('judgeMoment() refuses a shop with the mistake in it', () => {
  const verdict = judgeMoment(rowsOf(expectedBooks(100, 90)), seen, 2000)
  assert.equal(verdict.held, false)
  assert.match(verdict.troubles[0] ?? '', /^orders 1: expected .* found no row$/)
  assert.match(verdict.troubles.at(-1) ?? '', /^and \d+ more$/)
})

test('judgeLatest() takes all, one commit under way more, and measures what is lost', () => {
  const options = { mistakeAfter: 90, lossMaxMs: 100 }
  const judge = (count: number) => judgeLatest(rowsOf(expectedBooks(count, 90)), seen, options)
  const { held, lost, lostMs } = judge(300)
  assert.deepEqual({ held, lost, lostMs }, { held: true, lost: 0, lostMs: 0 })
  assert.equal(judge(301).held, true)
  assert.equal(judge(302).held, false)
  const few = judge(295)
  assert.deepEqual([few.held, few.lost, few.lostMs], [true, 5, 45])
  assert.equal(judge(280).held, false)
  assert.equal(judgeLatest(rowsOf(expectedBooks(300)), seen, options).held, false)
})

test('parseOracle() leaves out a last line that was cut short', () => {
  assert.deepEqual(parseOracle('1 10 12\n2 13 15\n3 1'), [
    { n: 1, startedMs: 10, returnedMs: 12 },
    { n: 2, startedMs: 13, returnedMs: 15 },
  ])
  assert.deepEqual(parseOracle(''), [])
  assert.throws(() => parseOracle('1 10 12\n3 13 15\n'), /line 2 is about order 3/)
})

function rowsOf(books: Books): Rows {
  const cells = (text: string) => text.split('|') as [string, string, string]
  return {
    orders: [...books.orders].map(([n, text]) => [n, ...cells(text)]),
    lines: [...books.lines].map(([key, text]) => {
      const [n = '', line = ''] = key.split('/')
      return [n, line, ...cells(text)]
    }),
    products: [...books.products].map(([id, text]) => [id, ...cells(text)]),
  }
}
