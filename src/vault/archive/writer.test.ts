import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import {
  collect,
  FakeLog,
  position,
  readBack,
  source,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { ManualTime } from '../../../test/support/manual-time.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { MemStorage } from '#storage/mem'
import { checkLog } from './check.ts'
import { parseKey } from './names.ts'
import { openReader } from './reader.ts'
import { openWriter } from './writer.ts'

const { signal } = new AbortController()
const keys = new VaultKeys()

async function keysIn(storage: MemStorage, prefix = `log/${source}/h1/`): Promise<string[]> {
  const found: string[] = []
  for await (const { key } of storage.list(prefix)) found.push(key)
  return found
}

test('what was appended reads back byte for byte, folded and open segments alike', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  {
    await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
    for (const block of log.blocks(0, 4500)) await writer.append(block, { signal })
    await writer.settle({ signal })
    assert.deepEqual(writer.durable(), { history: 'h1', at: position(4500) })
  }
  const kinds = (await keysIn(storage)).map((key) => parseKey(key)?.kind)
  assert.equal(kinds.filter((kind) => kind === 'full').length, 4)
  assert.deepEqual(await readBack(keys, storage), log.bytes(0, 4500))
  assert.deepEqual(
    await checkLog({ storage, source, reading: keys.reading, readData: true, signal }),
    [],
  )
})

test('a part is cut 400 ms after its first byte, and none while nothing is new', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  const time = new ManualTime()
  await using writer = await openWriter(
    writerOptions(keys, storage, scratch.path, { time }),
    signal,
  )
  await writer.append(log.block(0, 100), { signal })
  await time.advance(200)
  await writer.append(log.block(100, 200), { signal })
  await time.advance(199)
  assert.equal((await keysIn(storage)).length, 0)
  const shipped = Promise.withResolvers<void>()
  writer.onDurable(() => shipped.resolve())
  await time.advance(2)
  await shipped.promise
  assert.equal((await keysIn(storage)).length, 1)
  assert.deepEqual(writer.durable(), { history: 'h1', at: position(200) })
  await time.advance(60_000)
  assert.equal((await keysIn(storage)).length, 1)
})

test('a new writer goes on where the archive ends, and what it is given again is passed over', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  for (const to of [50, 950, 1000, 1700, 3050]) {
    await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
    const from = Math.max(0, Number(writer.durable()?.at ?? 0) - 333)
    for (const block of log.blocks(from, to)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  assert.deepEqual(await readBack(keys, storage), log.bytes(0, 3050))
  const found = await checkLog({ storage, source, reading: keys.reading, readData: true, signal })
  assert.deepEqual(found, [])
})

test('a block that leaves bytes out is refused as a gap, and nothing of it is taken', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
  await writer.append(log.block(0, 100), { signal })
  await assert.rejects(writer.append(log.block(101, 200), { signal }), (e) => isFault(e, 'gap'))
  await assert.rejects(writer.append(log.block(1000, 1100), { signal }), (e) => isFault(e, 'gap'))
  await writer.append(log.block(100, 200), { signal })
  await writer.flush({ signal })
  assert.deepEqual(await readBack(keys, storage), log.bytes(0, 200))
})

test('a declared gap is shown: two spans, and a reader that does not read across', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  {
    await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
    await writer.append(log.block(0, 500), { signal })
    writer.allowGap()
    await writer.append(log.block(2000, 2400), { signal })
    await writer.settle({ signal })
  }
  await assert.rejects(readBack(keys, storage), (e) => isFault(e, 'gap'))
  assert.deepEqual(await readBack(keys, storage, 2000), log.bytes(2000, 2400))
  const found = await checkLog({ storage, source, reading: keys.reading, readData: true, signal })
  assert.deepEqual(
    found.map(({ code }) => code),
    ['hole'],
  )
})

test('a second archiver is refused while the first one lives, and takes over when it went', async () => {
  using one = new Scratch()
  using two = new Scratch()
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now() })
  const log = new FakeLog()
  const first = await openWriter(writerOptions(keys, storage, one.path, { time }), signal)
  await first.append(log.block(0, 100), { signal })
  await first.flush({ signal })
  await time.advance(60_000)
  const second = writerOptions(keys, storage, two.path, { time })
  await assert.rejects(openWriter(second, signal), (e) => isFault(e, 'locked'))
  await first[Symbol.asyncDispose]()
  await using writer = await openWriter(second, signal)
  assert.deepEqual(writer.durable(), { history: 'h1', at: position(100) })
})

test('an archiver that lost its lease stops at once, and its late part is no part of the log', async () => {
  using one = new Scratch()
  using two = new Scratch()
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now() })
  const log = new FakeLog()
  const paused = new ManualTime()
  const zombie = await openWriter(writerOptions(keys, storage, one.path, { time: paused }), signal)
  await zombie.append(log.block(0, 100), { signal })
  await zombie.flush({ signal })
  await time.advance(31_000)
  await using writer = await openWriter(writerOptions(keys, storage, two.path, { time }), signal)
  await writer.append(log.block(100, 300), { signal })
  await writer.flush({ signal })
  await zombie.append(log.block(100, 250), { signal })
  await assert.rejects(zombie.flush({ signal }), (e) => isFault(e, 'conflict'))
  await assert.rejects(zombie.append(log.block(250, 300), { signal }), (e) =>
    isFault(e, 'conflict'),
  )
  await zombie[Symbol.asyncDispose]()
  await writer.append(log.block(300, 400), { signal })
  await writer.flush({ signal })
  assert.deepEqual(await readBack(keys, storage), log.bytes(0, 400))
  await paused.advance(0)
})

test('without a conditional put the chain tells which of two archivers went on', async () => {
  using one = new Scratch()
  using two = new Scratch()
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now(), conditionalPut: false })
  const log = new FakeLog({ segmentBytes: 400 })
  const paused = new ManualTime()
  await using zombie = await openWriter(
    writerOptions(keys, storage, one.path, { time: paused }),
    signal,
  )
  assert.equal(zombie.exclusive, false)
  await zombie.append(log.block(0, 100), { signal })
  await zombie.flush({ signal })
  await time.advance(31_000)
  {
    await using writer = await openWriter(writerOptions(keys, storage, two.path, { time }), signal)
    await writer.append(log.block(100, 300), { signal })
    await writer.flush({ signal })
    await zombie.append(log.block(100, 250), { signal })
    await zombie.append(log.block(250, 400), { signal })
    await zombie.settle({ signal })
    await writer.append(log.block(300, 400), { signal })
    for (const block of log.blocks(400, 900)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  assert.deepEqual(await readBack(keys, storage), log.bytes(0, 900))
  const found = await checkLog({ storage, source, reading: keys.reading, readData: true, signal })
  assert.deepEqual(
    found.filter(({ severity }) => severity !== 'notes'),
    [],
  )
  await using next = await openWriter(writerOptions(keys, storage, two.path, { time }), signal)
  assert.deepEqual(next.durable(), { history: 'h1', at: position(900) })
})

test('a history that follows another is read on into, without a hole', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const old = new FakeLog()
  const next = new FakeLog({ history: 'h2' })
  {
    await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
    for (const block of old.blocks(0, 1500)) await writer.append(block, { signal })
    for (const block of next.blocks(1000, 2300)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const seen: string[] = []
  for await (const s of reader.segments({ history: 'h1', at: position(0) }, { signal })) {
    seen.push(`${s.history} ${s.segment} ${Number(s.first)}-${Number(s.next)} ${s.complete}`)
    const bytes = await collect(await reader.read(s.segment, { signal, history: s.history }))
    const truth = s.history === 'h1' ? old : next
    assert.deepEqual(bytes, truth.bytes(Number(s.first), Number(s.next)))
  }
  assert.deepEqual(seen, [
    'h1 seg-000000 0-1000 true',
    'h1 seg-000001 1000-1500 false',
    'h2 seg-000001 1000-2000 true',
    'h2 seg-000002 2000-2300 false',
  ])
})

test('moment() finds the commits on both sides of a time, also when the clock stepped back', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  // Commit 20 is stamped 5 s late: the prefix before it ends with commit 19.
  const timeUs = (n: number) => BigInt(n === 20 ? 25 : n) * 1_000_000n
  const log = new FakeLog({ timeUs })
  {
    await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
    for (const block of log.blocks(0, 4500)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const first = { history: 'h1', at: position(0) }
  const at = async (seconds: number) => {
    const { last, next } = await reader.moment(first, BigInt(seconds) * 1_000_000n, { signal })
    return [last?.id, next?.id]
  }
  assert.deepEqual(await at(0), [undefined, 'tx1'])
  assert.deepEqual(await at(9), ['tx9', 'tx10'])
  assert.deepEqual(await at(19), ['tx19', 'tx20'])
  assert.deepEqual(await at(22), ['tx19', 'tx20'])
  assert.deepEqual(await at(25), ['tx25', 'tx26'])
  assert.deepEqual(await at(44), ['tx44', 'tx45'])
  assert.deepEqual(await at(45), ['tx45', undefined])
})

test('an archiver that was suspended tells of nothing as durable when it wakes', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  const time = new ManualTime()
  // Its clock moves while its timers do not fire.
  const asleep = { now: () => time.now(), monotonicMs: () => time.monotonicMs(), sleep: never }
  const options = writerOptions(keys, storage, scratch.path, { time: asleep })
  await using writer = await openWriter(options, signal)
  await writer.append(log.block(0, 100), { signal })
  await writer.flush({ signal })
  await time.advance(21_000)
  await writer.append(log.block(100, 200), { signal })
  await assert.rejects(writer.flush({ signal }), (e) => isFault(e, 'locked'))
  assert.deepEqual(writer.durable(), { history: 'h1', at: position(100) })
})

async function never(_ms: number, signal?: AbortSignal): Promise<void> {
  const { promise, reject } = Promise.withResolvers<void>()
  signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
  await promise
}

test('a log that was reset is refused where a gap is allowed; one that is read again is not', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  const options = writerOptions(keys, storage, scratch.path, { reading: keys.reading })
  await using writer = await openWriter(options, signal)
  for (const block of log.blocks(0, 2600)) await writer.append(block, { signal })
  const other = log.block(300, 400).bytes
  const resets = [
    { ...log.block(0, 100), bytes: other },
    { ...log.block(2500, 2600), bytes: other },
    { ...log.block(0, 100), segment: 'seg-again' },
  ]
  for (const block of resets) {
    writer.allowGap()
    await assert.rejects(writer.append(block, { signal }), (e) => isFault(e, 'source-changed'))
  }
  for (const from of [0, 1000, 2400, 2600]) {
    writer.allowGap()
    for (const block of log.blocks(from, 2700)) await writer.append(block, { signal })
  }
  await writer.settle({ signal })
  assert.deepEqual(await readBack(keys, storage), log.bytes(0, 2700))
  assert.deepEqual(
    await checkLog({ storage, source, reading: keys.reading, readData: true, signal }),
    [],
  )
})

test('a flush ends under load: it waits for what was taken in before it, and no more', async () => {
  using scratch = new Scratch()
  const storage = new SlowStorage()
  const log = new FakeLog({ segmentBytes: 100_000 })
  const options = writerOptions(keys, storage, scratch.path, { partBytesMax: 50 })
  await using writer = await openWriter(options, signal)
  await writer.append(log.block(0, 50), { signal })
  let at = 50
  let flushed = false
  const flush = writer.flush({ signal }).then(() => {
    flushed = true
    return Number(writer.durable()?.at ?? 0)
  })
  for (; !flushed && at < 5000; at += 50) await writer.append(log.block(at, at + 50), { signal })
  assert.ok((await flush) >= 50)
  assert.ok(at < 5000, 'the flush ended while more came in')
})

class SlowStorage extends MemStorage {
  override async put(...args: Parameters<MemStorage['put']>): Promise<void> {
    for (let turn = 0; turn < 5; turn++) await new Promise((go) => setImmediate(go))
    await super.put(...args)
  }
}

test('an append that is given up leaves the writer whole', async () => {
  using scratch = new Scratch()
  const storage = new SlowStorage()
  const log = new FakeLog()
  const options = writerOptions(keys, storage, scratch.path, { partBytesMax: 30 })
  await using writer = await openWriter(options, signal)
  let from = 0
  for (let tries = 0; from < 900 && tries < 200; tries++) {
    const abort = new AbortController()
    setImmediate(() => abort.abort(new Error('enough')))
    try {
      for (const block of log.blocks(from, 900, 90)) {
        await writer.append(block, { signal: abort.signal })
      }
    } catch (error) {
      assert.equal((error as Error).message, 'enough')
    }
    // As a reader of a journal would: from where the writer says that it ends.
    from = Number(writer.end?.at ?? 0)
  }
  await writer.flush({ signal })
  for (const block of log.blocks(0, 900, 90)) await writer.append(block, { signal })
  await writer.settle({ signal })
  assert.deepEqual(await readBack(keys, storage), log.bytes(0, 900))
})
