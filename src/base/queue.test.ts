import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Queue } from './queue.ts'

test('a Queue hands items over in order and ends', async () => {
  const queue = new Queue<number>(100)
  for (const n of [1, 2, 3]) await queue.push(n, 1)
  queue.end()
  assert.deepEqual(await Array.fromAsync(queue), [1, 2, 3])
})

test('a Queue makes its producer wait at the limit, and lets one heavy item pass alone', async () => {
  const queue = new Queue<string>(10)
  await queue.push('heavy', 50)
  let second = false
  const pushing = queue.push('second', 5).then(() => {
    second = true
  })
  await Promise.resolve()
  assert.equal(second, false)
  assert.equal(queue.depth, 50)
  const items = queue[Symbol.asyncIterator]()
  assert.equal((await items.next()).value, 'heavy')
  await pushing
  assert.equal((await items.next()).value, 'second')
})

test('a Queue throws its error at the consumer after what was queued, and at a waiting producer', async () => {
  const queue = new Queue<number>(1)
  await queue.push(1, 1)
  const waiting = queue.push(2, 1)
  queue.end(new Error('broken'))
  await assert.rejects(waiting, /broken/)
  const items = queue[Symbol.asyncIterator]()
  assert.equal((await items.next()).value, 1)
  await assert.rejects(items.next(), /broken/)
})

test('a producer that waits is freed when the consumer leaves or the signal aborts', async () => {
  const queue = new Queue<number>(1)
  await queue.push(1, 1)
  const abort = new AbortController()
  const waiting = queue.push(2, 1, abort.signal)
  abort.abort(new Error('stop'))
  await assert.rejects(waiting, /stop/)
  const freed = queue.push(3, 1)
  for await (const item of queue) {
    assert.equal(item, 1)
    break
  }
  await freed
})
