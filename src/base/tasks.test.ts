import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eachLimit, tasks } from './tasks.ts'

const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))

test('tasks() gives back what the body returned once all work has ended', async () => {
  const ended: number[] = []
  const result = await tasks(undefined, async (t) => {
    for (const n of [1, 2]) {
      void t.run(async () => {
        await Promise.resolve()
        ended.push(n)
      })
    }
    return 'done'
  })
  assert.equal(result, 'done')
  assert.deepEqual(ended, [1, 2])
})

test('tasks() aborts the siblings of the first failure, waits for them, and throws that failure', async () => {
  const first = new Error('first')
  let siblingEnded = false
  await assert.rejects(
    tasks(undefined, async (t) => {
      void t.run(async (signal) => {
        await aborted(signal)
        siblingEnded = true
        throw new Error('second')
      })
      void t.run(() => Promise.reject(first))
    }),
    first,
  )
  assert.equal(siblingEnded, true)
})

test('tasks() aborts what runs when the body itself fails', async () => {
  let ended = false
  await assert.rejects(
    tasks(undefined, async (t) => {
      void t.run(async (signal) => {
        await aborted(signal)
        ended = true
      })
      await Promise.resolve()
      throw new Error('body')
    }),
    /body/,
  )
  assert.equal(ended, true)
})

test('tasks() starts nothing under a signal that is aborted already', async () => {
  const reason = new Error('stopped before')
  let started = false
  await assert.rejects(
    tasks(AbortSignal.abort(reason), async (t) => {
      await t.run(async () => {
        started = true
      })
    }),
    reason,
  )
  assert.equal(started, false)
})

test('eachLimit() runs every item, never more than its width at once', async () => {
  let running = 0
  let most = 0
  const seen: number[] = []
  await eachLimit(Array.from({ length: 50 }).keys(), 3, undefined, async (n) => {
    running += 1
    most = Math.max(most, running)
    await new Promise(setImmediate)
    seen.push(n)
    running -= 1
  })
  assert.equal(seen.length, 50)
  assert.equal(most, 3)
})

test('eachLimit() stops at the first failure', async () => {
  let started = 0
  await assert.rejects(
    eachLimit(Array.from({ length: 1000 }).keys(), 2, undefined, async (n) => {
      started += 1
      if (n === 5) throw new Error('five')
    }),
    /five/,
  )
  assert.ok(started < 20, `${started} items were started`)
})
