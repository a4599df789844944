import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Time } from '#base/time'
import { MemStorage } from '#storage/mem'
import {
  FakeLog,
  position,
  source,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { ManualTime } from '../../../test/support/manual-time.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { checkLog } from './check.ts'
import { readIndex } from './log-index.ts'
import { openReader } from './reader.ts'
import { readSpans } from './spans.ts'
import { trimLog } from './trim.ts'
import { openWriter } from './writer.ts'

const { signal } = new AbortController()
const keys = new VaultKeys()
const hourMs = 3_600_000

/** A host whose wall clock was set: timers and spans run on. */
class SteppedTime implements Time {
  readonly #time: ManualTime
  stepMs = 0

  constructor(time: ManualTime) {
    this.#time = time
  }

  now(): number {
    return this.#time.now() + this.stepMs
  }

  monotonicMs(): number {
    return this.#time.monotonicMs()
  }

  sleep(ms: number, until?: AbortSignal): Promise<void> {
    return this.#time.sleep(ms, until)
  }
}

for (const [name, stepMs] of [
  ['back', -hourMs],
  ['forward', hourMs],
] as const) {
  test(`the clock of the archiver steps ${name} by an hour: it goes on, alone, and deletes nothing early`, async () => {
    using scratch = new Scratch('clock')
    const store = new ManualTime()
    const storage = new MemStorage({ now: () => store.now() })
    const time = new SteppedTime(store)
    const log = new FakeLog()
    const options = writerOptions(keys, storage, scratch.path, { time, graceMs: 60_000 })
    await using writer = await openWriter(options, signal)
    const append = async (from: number, to: number) => {
      for (const block of log.blocks(from, to)) {
        await writer.append(block, { signal })
        // Parts are cut by a clock that does not step.
        await store.advance(500)
      }
      await store.run(writer.settle({ signal }), 10)
      assert.equal(writer.durable()?.at, position(to))
    }
    await append(0, 2500)
    time.stepMs = stepMs
    await append(2500, 4700)
    const parts = async () => {
      const found: string[] = []
      for await (const { key } of storage.list(`log/${source}/h1/`)) {
        if (key.includes('.part.')) found.push(key)
      }
      return found
    }
    const before = await parts()
    await store.advance(20_000)
    assert.deepEqual(await parts(), before)
    const other = writerOptions(keys, storage, `${scratch.path}/other`, { time: store })
    await assert.rejects(openWriter(other, signal), /another archiver/)
    await store.advance(60_000)
    // Removed by the next signs of life: as many as it takes.
    for (let i = 0; i < 100 && (await parts()).length === before.length; i++) {
      await store.advance(8000)
    }
    assert.ok((await parts()).length < before.length)
    assert.deepEqual(
      await checkLog({ storage, source, reading: keys.reading, readData: true, signal }),
      [],
    )
  })

  test(`the store's clock steps ${name} by an hour: one archiver at a time, and no hole`, async () => {
    using scratch = new Scratch('clock')
    const host = new ManualTime()
    let stepped = 0
    const storage = new MemStorage({ now: () => host.now() + stepped })
    const log = new FakeLog()
    const options = writerOptions(keys, storage, scratch.path, { time: host })
    {
      await using writer = await openWriter(options, signal)
      for (const block of log.blocks(0, 2300)) await writer.append(block, { signal })
      stepped = stepMs
      // The next sign of life is stamped by the new clock.
      await host.advance(9000)
      const other = writerOptions(keys, storage, `${scratch.path}/other`, { time: host })
      await assert.rejects(openWriter(other, signal), /another archiver/)
      for (const block of log.blocks(2300, 4100)) await writer.append(block, { signal })
      await writer.settle({ signal })
    }
    await using next = await openWriter(options, signal)
    assert.equal(next.end?.at, position(4100))
    assert.deepEqual(
      await checkLog({ storage, source, reading: keys.reading, readData: true, signal }),
      [],
    )
  })

  test(`the clock of the source steps ${name} by an hour: moments, the span and a trim keep to the order of the log`, async () => {
    using scratch = new Scratch('clock')
    const storage = new MemStorage()
    const step = BigInt(stepMs) * 1000n
    // Commits are a second apart; from the twentieth on the clock is another one.
    const timeUs = (n: number) => 10_000_000_000n + BigInt(n) * 1_000_000n + (n >= 20 ? step : 0n)
    const log = new FakeLog({ timeUs })
    {
      await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
      for (const block of log.blocks(0, 4500)) await writer.append(block, { signal })
      await writer.settle({ signal })
    }
    const reader = await openReader({ storage, source, reading: keys.reading, signal })
    const begin = { history: 'h1', at: position(0) }
    // The longest prefix before the first commit that is stamped later.
    for (const askedUs of [timeUs(5), timeUs(19), timeUs(20), timeUs(30), timeUs(45)]) {
      const numbers = Array.from({ length: 45 }, (_, i) => i + 1)
      const later = numbers.find((n) => timeUs(n) > askedUs)
      const { last, next } = await reader.moment(begin, askedUs, { signal })
      assert.equal(next?.id, later === undefined ? undefined : `tx${later}`)
      const before = (later ?? 46) - 1
      assert.equal(last?.id, before === 0 ? undefined : `tx${before}`)
    }
    const index = await readIndex(storage, source, keys.reading, signal)
    const [span] = await readSpans({ storage, source, trust: keys.reading }, index, signal)
    const latest = stepMs < 0 ? timeUs(19) : timeUs(45)
    assert.deepEqual([span?.firstCommitUs, span?.lastCommitUs], [timeUs(1), latest])
    const record = async () => undefined
    const trim = { storage, source, trust: keys.reading, record, signal }
    await trimLog(trim, { history: 'h1', at: position(2500) })
    const [rest] = await readSpans(
      { storage, source, trust: keys.reading },
      await readIndex(storage, source, keys.reading, signal),
      signal,
    )
    assert.deepEqual([rest?.first, rest?.next], [position(2000), position(4500)])
  })
}
