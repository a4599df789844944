import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/faults'
import type { RetryPolicy } from '#base/retry'
import type { Time } from '#base/time'
import { MemStorage } from '../mem/mem.ts'
import type { PutOptions, Storage } from '../storage.ts'
import { chunks, collect, pattern, readAll, rejects } from '../storage.suite.ts'
import { Crash, withFaults } from './fault.ts'
import { withLimit } from './limit.ts'
import { withRetry } from './retry.ts'

/** A clock that moves by sleeping alone. */
function fakeTime(): Time & { readonly slept: number[] } {
  let now = 0
  const slept: number[] = []
  return {
    slept,
    now: () => now,
    monotonicMs: () => now,
    async sleep(ms, signal) {
      signal?.throwIfAborted()
      slept.push(ms)
      now += ms
    },
  }
}

/** A store whose gets fail so many times first. */
function failing(times: number, fault: Fault): Storage & { calls: number } {
  const storage = new (class extends MemStorage {
    calls = 0
    override async get(key: string) {
      if (this.calls++ < times) throw fault
      return super.get(key)
    }
  })()
  return storage
}

const unreachable = new Fault('unreachable', 'read a: lost')

test('withRetry() waits longer each time, with jitter, up to its limit of tries', async () => {
  const time = fakeTime()
  const random = () => 0.5
  const policy: RetryPolicy = { triesMax: 6, firstDelayMs: 100, delayMaxMs: 500, time, random }
  const storage = failing(5, unreachable)
  await storage.put('a', pattern(3))
  assert.equal((await withRetry(storage, policy).get('a')).length, 3)
  assert.deepEqual(time.slept, [75, 150, 300, 375, 375])
  const never = failing(Number.POSITIVE_INFINITY, unreachable)
  await rejects(withRetry(never, policy).get('a'), 'unreachable')
  assert.equal(never.calls, 6)
})

test('withRetry() does not repeat what no repetition mends', async () => {
  for (const code of ['denied', 'missing', 'corrupt', 'usage'] as const) {
    const storage = failing(1, new Fault(code, 'read a: no'))
    await rejects(withRetry(storage).get('a'), code)
    assert.equal(storage.calls, 1)
  }
})

test('withRetry() ends at once when the signal aborts', async () => {
  const abort = new AbortController()
  const time = fakeTime()
  const policy = { triesMax: 9, firstDelayMs: 1, delayMaxMs: 1, time, onRetry: () => abort.abort() }
  const storage = failing(9, unreachable)
  const call = withRetry(storage, policy).get('a', { signal: abort.signal })
  await assert.rejects(call, { name: 'AbortError' })
  assert.equal(storage.calls, 1)
})

const at = (times: number): RetryPolicy => {
  return { triesMax: times, firstDelayMs: 1, delayMaxMs: 1, time: fakeTime() }
}

test('withRetry() counts the tries of a stream and a listing from each progress on', async () => {
  const inner = new MemStorage()
  const bytes = pattern(640_000)
  await inner.put('a', bytes)
  for (let i = 0; i < 300; i++) await inner.put(`k/${String(i).padStart(3, '0')}`, [])
  let breaks = 0
  const flaky = new (class extends MemStorage {
    override async *stream(_key: string, options: { start?: number } = {}) {
      for await (const chunk of inner.stream('a', options)) {
        yield chunk.subarray(0, 50_000)
        breaks += 1
        throw unreachable
      }
    }
    override async *list(prefix: string, options: { after?: string } = {}) {
      let count = 0
      for await (const info of inner.list(prefix, options)) {
        if (count++ === 7) {
          breaks += 1
          throw unreachable
        }
        yield info
      }
    }
  })()
  assert.ok(bytes.equals(await readAll(withRetry(flaky, at(2)).stream('a'))))
  assert.equal(breaks, 13)
  const keys = (await collect(withRetry(flaky, at(2)).list('k/'))).map((info) => info.key)
  assert.deepEqual(
    keys,
    (await collect(inner.list('k/'))).map((info) => info.key),
  )
})

test('withRetry() takes no other writer’s object for its own', async () => {
  const answers = (others: Buffer) =>
    new (class extends MemStorage {
      tries = 0
      override async put(key: string, parts: Uint8Array, options: PutOptions) {
        await super.put(key, this.tries++ === 0 ? others : parts, options)
        throw unreachable
      }
    })()
  const mine = Buffer.from('mine')
  await withRetry(answers(mine), at(3)).put('lease', mine, { ifAbsent: true })
  const theirs = answers(Buffer.from('them'))
  await rejects(withRetry(theirs, at(3)).put('lease', mine, { ifAbsent: true }), 'exists')
  const first = new MemStorage()
  await first.put('lease', mine)
  await rejects(withRetry(first, at(3)).put('lease', mine, { ifAbsent: true }), 'exists')
})

test('withLimit() keeps to its rate over all calls together', async () => {
  const time = fakeTime()
  const limits = { uploadBytesPerSecond: 1000, downloadBytesPerSecond: 2000 }
  const storage = withLimit(new MemStorage(), limits, time)
  // A second's worth may go at once; the rest takes its time.
  for (let i = 0; i < 5; i++) await storage.put(`a/${i}`, pattern(1000))
  assert.equal(time.monotonicMs(), 4000)
  await storage.putStream('b', chunks(pattern(6000), 500))
  assert.equal(time.monotonicMs(), 10_000)
  await storage.get('b')
  assert.equal(time.monotonicMs(), 12_000)
  await readAll(storage.stream('b'))
  assert.equal(time.monotonicMs(), 15_000)
  const idle = time.monotonicMs()
  await time.sleep(100_000)
  await storage.put('c', pattern(2000))
  assert.equal(time.monotonicMs(), idle + 101_000, 'only a second of idleness is saved up')
})

test('withLimit() lets an abort end the waiting', async () => {
  const storage = withLimit(new MemStorage(), { uploadBytesPerSecond: 1 })
  const abort = new AbortController()
  const put = storage.put('a', pattern(1000), { signal: abort.signal })
  abort.abort()
  await assert.rejects(put, { name: 'AbortError' })
  assert.equal(await storage.stat('a'), undefined)
})

/** Three writes, and reads between them. */
async function story(storage: Storage): Promise<void> {
  await storage.put('a', pattern(1))
  await storage.get('a')
  await storage.putStream('b', chunks(pattern(10), 3))
  await collect(storage.list(''))
  await storage.delete('a')
}

test('withFaults() counts operations and dies at each of them', async () => {
  const counted = withFaults(new MemStorage())
  await story(counted)
  assert.deepEqual(
    counted.operations.map(({ kind, key }) => `${kind} ${key}`),
    ['put a', 'putStream b', 'delete a'],
  )
  const left: Record<string, readonly string[][]> = {
    before: [[], ['a'], ['a', 'b']],
    after: [['a'], ['a', 'b'], ['b']],
  }
  for (const crashWhen of ['before', 'after'] as const) {
    for (let crashAt = 0; crashAt < counted.operations.length; crashAt++) {
      const world = new MemStorage()
      const storage = withFaults(world, { crashAt, crashWhen })
      await assert.rejects(story(storage), Crash)
      for (const call of [() => storage.get('a'), () => collect(storage.list(''))]) {
        await assert.rejects(call, Crash, 'the dead do nothing more')
      }
      const keys = (await collect(world.copy().list(''))).map((info) => info.key)
      assert.deepEqual(keys, left[crashWhen]?.[crashAt])
    }
  }
})

test('withFaults() can count and die at reads as well', async () => {
  const counts = () => true
  const counted = withFaults(new MemStorage(), { counts })
  await story(counted)
  assert.equal(counted.operations.length, 5)
  for (let crashAt = 0; crashAt < 5; crashAt++) {
    await assert.rejects(story(withFaults(new MemStorage(), { counts, crashAt })), Crash)
  }
})

test('withFaults() fails by its seed alone', async () => {
  const outcome = async (seed: number) => {
    const storage = withFaults(new MemStorage(), { seed, rate: 0.5 })
    const results: string[] = []
    for (let i = 0; i < 50; i++) {
      results.push(
        await storage.put(`k/${i}`, []).then(
          () => 'ok',
          (e: Fault) => e.code,
        ),
      )
    }
    return results
  }
  const first = await outcome(7)
  assert.deepEqual(await outcome(7), first)
  assert.notDeepEqual(await outcome(8), first)
  assert.ok(first.includes('ok') && first.includes('unreachable') && first.includes('throttled'))
})

test('withFaults() lists late and runs full', async () => {
  const late = withFaults(new MemStorage(), { listsLate: 2 })
  await late.put('a', pattern(1))
  assert.deepEqual(await collect(late.list('')), [])
  await late.get('a')
  assert.equal((await collect(late.list(''))).length, 1)
  const small = withFaults(new MemStorage(), { capacityBytes: 100 })
  await small.put('a', pattern(60))
  await rejects(small.put('b', pattern(60)), 'full')
  await rejects(small.putStream('b', chunks(pattern(60), 10)), 'full')
  await small.put('a', pattern(90))
  await small.delete('a')
  await small.put('b', pattern(60))
})
