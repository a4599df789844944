import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/faults'
import type { PutOptions, Storage } from '#storage'
import {
  FakeLog,
  readBack,
  source,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { ManualTime } from '../../../test/support/manual-time.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { MemStorage } from '#storage/mem'
import { Crash, type FaultOptions, withFaults } from '#storage/wrap/fault'
import { withRetry } from '#storage/wrap/retry'
import type { LogFinding } from './archive.ts'
import { checkLog } from './check.ts'
import { readTail } from './tail.ts'
import { openWriter } from './writer.ts'

const { signal } = new AbortController()
const keys = new VaultKeys()
const log = new FakeLog({ segmentBytes: 300 })
const total = 750
const patient = { triesMax: 30, firstDelayMs: 0, delayMaxMs: 0 }

/** Appends the log from where the archive ends, with a flush now and then; returns what was durable last. */
async function archive(storage: Storage, folder: string, until = total): Promise<number> {
  const time = new ManualTime()
  // Cutting by time is off: the test decides what a part is, and every run does the same.
  const more = { time, cutAfterMs: 1e12, graceMs: 0, partBytesMax: 130 }
  let durable = 0
  await using writer = await openWriter(writerOptions(keys, storage, folder, more), signal)
  durable = Number(writer.durable()?.at ?? 0)
  writer.onDurable((at) => {
    durable = Number(at.at)
  })
  try {
    let count = 0
    for (const block of log.blocks(durable, until, 70)) {
      await writer.append(block, { signal })
      count += 1
      if (count % 5 === 0) await writer.settle({ signal })
      if (count % 6 === 0) await time.advance(8001)
    }
    await writer.settle({ signal })
    await time.advance(8001)
    await writer.settle({ signal })
  } catch (error) {
    if (!(error instanceof Crash)) throw error
  }
  return durable
}

function checkAll(storage: Storage): Promise<LogFinding[]> {
  return checkLog({ storage, source, reading: keys.reading, readData: true, signal })
}

async function assertWhole(storage: Storage, upTo: number, what: string): Promise<void> {
  const bytes = await readBack(keys, storage)
  assert.ok(bytes.length >= upTo, `${what}: ${bytes.length} bytes, ${upTo} were durable`)
  assert.ok(bytes.equals(log.bytes(0, bytes.length)), `${what}: other bytes`)
}

/** Runs until the crash, then looks at what is left, goes on, and looks again. */
async function crashAndResume(fault: FaultOptions, sameHost: boolean, what: string) {
  using one = new Scratch()
  using two = new Scratch()
  const storage = new MemStorage()
  const faulty = withFaults(storage, fault)
  let durable = 0
  try {
    durable = await archive(faulty, one.path)
  } catch (error) {
    if (!(error instanceof Crash)) throw error
  }
  if (durable > 0) await assertWhole(storage, durable, `${what}, after the crash`)
  if (!sameHost) await dropLeases(storage)
  await archive(storage, sameHost ? one.path : two.path)
  await assertWhole(storage, total, `${what}, gone on`)
  const findings = await checkAll(storage)
  assert.deepEqual(findings, [], what)
  return faulty.operations.length
}

/** What waiting for the end of a lease comes to. */
async function dropLeases(storage: Storage): Promise<void> {
  for await (const { key } of storage.list(`log/${source}/=lease/`)) await storage.delete(key)
}

for (const crashWhen of ['before', 'after'] as const) {
  test(`invariant 3: killed ${crashWhen} any write to the store, the archiver goes on with no hole and no overlap`, async () => {
    const count = await crashAndResume({}, true, 'without a crash')
    assert.ok(count > 15, `${count} operations`)
    for (let crashAt = 0; crashAt < count; crashAt++) {
      await crashAndResume({ crashAt, crashWhen }, true, `crash ${crashWhen} ${crashAt}`)
    }
  })

  test(`invariant 3: so it does on another host, killed ${crashWhen} any write, with the spool gone`, async () => {
    const count = await crashAndResume({}, false, 'without a crash')
    for (let crashAt = 0; crashAt < count; crashAt++) {
      await crashAndResume({ crashAt, crashWhen }, false, `crash ${crashWhen} ${crashAt}`)
    }
  })
}

/** A store that takes puts late and out of order, by a seed; what it has not taken when the archiver dies never comes. */
class ShufflingStorage extends MemStorage {
  readonly #random: () => number
  dead = false

  constructor(seed: number) {
    super()
    let state = seed
    this.#random = () => {
      state = (state * 48_271) % 2_147_483_647
      return state / 2_147_483_647
    }
  }

  override async put(
    key: string,
    parts: Uint8Array | readonly Uint8Array[],
    options: PutOptions = {},
  ): Promise<void> {
    const turns = Math.floor(this.#random() * 12)
    for (let turn = 0; turn < turns; turn++) await new Promise((go) => setImmediate(go))
    if (this.dead) throw new Crash('lost on the way')
    await super.put(key, parts, { ...options, signal: undefined })
  }
}

test('invariant 2: with answers out of order, nothing is durable before all that comes before it', async () => {
  let orphaned = 0
  for (let seed = 1; seed <= 25; seed++) {
    using scratch = new Scratch()
    const storage = new ShufflingStorage(seed * 7919)
    const faulty = withFaults(storage, { crashAt: 4 + (seed % 9), crashWhen: 'before' })
    const time = new ManualTime()
    let durable = 0
    {
      const more = { time, cutAfterMs: 1e12, partBytesMax: 70 }
      const options = writerOptions(keys, faulty, scratch.path, more)
      await using writer = await openWriter(options, signal)
      writer.onDurable(({ at }) => {
        durable = Number(at)
      })
      try {
        for (const block of log.blocks(0, total, 50)) await writer.append(block, { signal })
        await writer.flush({ signal })
      } catch (error) {
        if (!(error instanceof Crash)) throw error
      }
      storage.dead = true
    }
    const left = storage.copy()
    const { orphans } = await readTail({ storage: left, source, trust: keys.reading }, signal)
    orphaned += orphans.length
    if (durable > 0) await assertWhole(left, durable, `seed ${seed}, after the crash`)
    await archive(left, scratch.path)
    await assertWhole(left, total, `seed ${seed}, gone on`)
    assert.deepEqual(await checkAll(left), [], `seed ${seed}`)
  }
  assert.ok(orphaned > 0, 'some crash left a part behind one that never came')
})

test('a store that fails one call in five, under the retry wrapper, gets every byte once', async () => {
  for (let seed = 1; seed <= 12; seed++) {
    using scratch = new Scratch()
    const storage = new MemStorage()
    const faulty = withRetry(withFaults(storage, { seed, rate: 0.2 }), patient)
    await archive(faulty, scratch.path)
    await assertWhole(storage, total, `seed ${seed}`)
    const findings = await checkAll(storage)
    assert.deepEqual(findings, [], `seed ${seed}`)
  }
})

test('a store that fails without a retry fails the writer, and a new one goes on', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    using scratch = new Scratch()
    const storage = new MemStorage()
    let durable = 0
    for (let tries = 0; tries < 200 && durable < total; tries++) {
      try {
        const faulty = withFaults(storage, { seed: seed * 1000 + tries, rate: 0.02 })
        durable = await archive(faulty, scratch.path)
      } catch (error) {
        if (!(error instanceof Fault)) throw error
      }
    }
    await archive(storage, scratch.path)
    await assertWhole(storage, total, `seed ${seed}`)
    const findings = await checkAll(storage)
    assert.deepEqual(findings, [], `seed ${seed}`)
  }
})
