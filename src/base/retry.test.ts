import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from './faults.ts'
import { retry, type RetryPolicy } from './retry.ts'
import type { Time } from './time.ts'

function policy(delays: number[]): RetryPolicy {
  const time: Time = {
    now: () => 0,
    monotonicMs: () => 0,
    sleep: async (ms) => {
      delays.push(ms)
    },
  }
  return { triesMax: 4, firstDelayMs: 100, delayMaxMs: 250, time, random: () => 1 }
}

test('retry() waits longer each time, up to its maximum, and gives up after its tries', async () => {
  const delays: number[] = []
  let tries = 0
  const failing = retry(policy(delays), undefined, async () => {
    tries += 1
    throw new Fault('unreachable', `try ${tries}`)
  })
  await assert.rejects(failing, /try 4/)
  assert.deepEqual(delays, [100, 200, 250])
})

test('retry() passes on at once what is not for retrying', async () => {
  for (const error of [new Fault('denied', 'no'), new TypeError('a defect')]) {
    let tries = 0
    const failing = retry(policy([]), undefined, async () => {
      tries += 1
      throw error
    })
    await assert.rejects(failing, error)
    assert.equal(tries, 1)
  }
})

test('retry() gives back the first success', async () => {
  const result = await retry(policy([]), undefined, async (tries) => {
    if (tries < 3) throw new Fault('throttled', 'slow down')
    return tries
  })
  assert.equal(result, 3)
})
