import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import {
  collect,
  FakeLog,
  position,
  source,
  spansOf,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { ManualTime } from '../../../test/support/manual-time.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { MemStorage } from '#storage/mem'
import { checkLog } from './check.ts'
import { copyLog } from './copy.ts'
import { readIndex } from './log-index.ts'
import { parseKey } from './names.ts'
import { openReader } from './reader.ts'
import { trimLog } from './trim.ts'
import { openWriter } from './writer.ts'

const { signal } = new AbortController()
const keys = new VaultKeys()
const log = new FakeLog()

type Filled = { readonly storage: MemStorage; readonly folder: string; readonly time: ManualTime }

async function fill(filled: Filled, from: number, to: number, settle = true): Promise<void> {
  const { storage, folder, time } = filled
  await using writer = await openWriter(writerOptions(keys, storage, folder, { time }), signal)
  for (const block of log.blocks(from, to)) await writer.append(block, { signal })
  await (settle ? writer.settle({ signal }) : writer.flush({ signal }))
}

async function keysIn(storage: MemStorage): Promise<string[]> {
  return Array.fromAsync(storage.list(`log/${source}/h1/`), ({ key }) => key)
}

test('spans tell from names and heads what is there, without any secret', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  await fill({ storage, folder: scratch.path, time: new ManualTime() }, 0, 2450)
  const [span, ...more] = await spansOf(keys, storage)
  assert.equal(more.length, 0)
  assert.deepEqual(
    { ...span, bytes: 0 },
    {
      source,
      history: 'h1',
      continues: false,
      first: position(0),
      next: position(2450),
      completeUs: undefined,
      firstCommitUs: 1_000_000n,
      lastCommitUs: 24_000_000n,
      bytes: 0,
      objects: 3,
    },
  )
})

test('a beat travels with the next part, and with the lease while the source is idle', async () => {
  using scratch = new Scratch()
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now() })
  const options = writerOptions(keys, storage, scratch.path, { time })
  await using writer = await openWriter(options, signal)
  const beat = (at: number, timeUs: bigint) =>
    writer.beat({ kind: 'beat', history: 'h1', at: position(at), timeUs })
  await writer.append(log.block(0, 100), { signal })
  beat(100, 5_000_000n)
  await writer.flush({ signal })
  assert.equal((await spansOf(keys, storage))[0]?.completeUs, 5_000_000n)
  beat(100, 9_000_000n)
  assert.equal((await spansOf(keys, storage))[0]?.completeUs, 5_000_000n)
  await time.advance(8001)
  assert.equal((await spansOf(keys, storage))[0]?.completeUs, 9_000_000n)
  // The source is ahead of what was taken in: its word does not count yet.
  beat(300, 20_000_000n)
  await time.advance(8001)
  assert.equal((await spansOf(keys, storage))[0]?.completeUs, 9_000_000n)
  await writer.append(log.block(100, 300), { signal })
  await writer.append(log.block(300, 310), { signal })
  await writer.flush({ signal })
  assert.equal((await keysIn(storage)).length, 2)
})

test('parts are deleted when the object that they were folded into is old enough by the store’s clock', async () => {
  using scratch = new Scratch()
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now() })
  const options = writerOptions(keys, storage, scratch.path, { time, graceMs: 60_000 })
  await using writer = await openWriter(options, signal)
  for (let at = 0; at < 1000; at += 100) {
    await writer.append(log.block(at, at + 100), { signal })
    await writer.flush({ signal })
  }
  await writer.settle({ signal })
  assert.equal((await keysIn(storage)).length, 11)
  await time.advance(50_000)
  assert.equal((await keysIn(storage)).length, 11)
  await time.advance(20_000)
  const left = await keysIn(storage)
  assert.deepEqual(
    left.map((key) => parseKey(key)?.kind),
    ['full'],
  )
  assert.deepEqual(readdirSync(options.spoolFolder), [])
})

test('a fold is held by object lock, parts are not', async () => {
  using scratch = new Scratch()
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now() })
  const options = writerOptions(keys, storage, scratch.path, { time, retainMs: 3_600_000 })
  await using writer = await openWriter(options, signal)
  for (const block of log.blocks(0, 1000)) await writer.append(block, { signal })
  await writer.settle({ signal })
  for (const key of await keysIn(storage)) {
    const kind = parseKey(key)?.kind
    if (kind === 'full') await assert.rejects(storage.delete(key), (e) => isFault(e, 'denied'))
    else await storage.delete(key)
  }
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const bytes = await collect(await reader.read('seg-000000', { signal }))
  assert.deepEqual(bytes, log.bytes(0, 1000))
})

test('many small parts of an open segment are joined into runs', async () => {
  using scratch = new Scratch()
  const slow = new FakeLog({ segmentBytes: 100_000 })
  const storage = new MemStorage()
  {
    const options = writerOptions(keys, storage, scratch.path, { graceMs: 0 })
    await using writer = await openWriter(options, signal)
    for (let at = 0; at < 6000; at += 10) {
      await writer.append(slow.block(at, at + 10), { signal })
      await writer.flush({ signal })
    }
    await writer.settle({ signal })
  }
  const kinds = (await keysIn(storage)).map((key) => parseKey(key)?.kind)
  assert.equal(kinds.filter((kind) => kind === 'run').length, 2)
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  assert.deepEqual(await collect(await reader.read('seg-000000', { signal })), slow.bytes(0, 6000))
  {
    await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
    for (const block of slow.blocks(6000, 100_000, 5000)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  const whole = await openReader({ storage, source, reading: keys.reading, signal })
  const bytes = await collect(await whole.read('seg-000000', { signal }))
  assert.deepEqual(bytes, slow.bytes(0, 100_000))
  const findings = await checkLog({
    storage,
    source,
    reading: keys.reading,
    readData: true,
    signal,
  })
  assert.deepEqual(findings, [])
})

test('copyLog() brings a second vault up, again and again, and shows the holes of the first', async () => {
  using one = new Scratch()
  using two = new Scratch()
  const others = new VaultKeys()
  const from = new MemStorage()
  const to = new MemStorage()
  const first = { storage: from, folder: one.path, time: new ManualTime() }
  const copy = async () => {
    const reader = await openReader({ storage: from, source, reading: keys.reading, signal })
    await using writer = await openWriter(writerOptions(others, to, two.path), signal)
    await copyLog(reader, writer, { signal })
    await writer.settle({ signal })
  }
  await fill(first, 0, 1350)
  await copy()
  await fill(first, 1350, 2720)
  await copy()
  await copy()
  {
    await using writer = await openWriter(writerOptions(keys, from, one.path), signal)
    writer.allowGap()
    for (const block of log.blocks(5000, 6200)) await writer.append(block, { signal })
    await writer.flush({ signal })
  }
  await copy()
  const reader = await openReader({ storage: to, source, reading: others.reading, signal })
  const read = async (segment: string) => collect(await reader.read(segment, { signal }))
  assert.deepEqual(await read('seg-000001'), log.bytes(1000, 2000))
  assert.deepEqual(await read('seg-000002'), log.bytes(2000, 2720))
  assert.deepEqual(await read('seg-000006'), log.bytes(6000, 6200))
  const found = await checkLog({
    storage: to,
    source,
    reading: others.reading,
    readData: true,
    signal,
  })
  assert.deepEqual(
    found.map(({ code }) => code),
    ['hole'],
  )
  const moment = await reader.moment({ history: 'h1', at: position(0) }, 20_000_000n, { signal })
  assert.equal(moment.last?.id, 'tx20')
})

const record = async () => undefined

test('trimLog() removes the log before a position, and an archiver goes on behind it', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const filled = { storage, folder: scratch.path, time: new ManualTime() }
  await fill(filled, 0, 4450)
  const options = { storage, source, trust: keys.reading, record, signal }
  assert.equal(await trimLog(options, { history: 'other', at: position(9000) }), 0)
  assert.ok((await trimLog(options, { history: 'h1', at: position(2500) })) > 0)
  const [span] = await spansOf(keys, storage)
  assert.deepEqual([span?.first, span?.next], [position(2000), position(4450)])
  await trimLog(options, { history: 'h1', at: position(4450) })
  await fill(filled, 4450, 5100)
  const [rest] = await spansOf(keys, storage)
  assert.deepEqual([rest?.first, rest?.next], [position(4000), position(5100)])
  const findings = await checkLog({
    storage,
    source,
    reading: keys.reading,
    readData: true,
    signal,
  })
  assert.deepEqual(findings, [])
})

test('trimLog() ends at what object lock still holds', async () => {
  using scratch = new Scratch()
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now() })
  for (const [from, to] of [
    [0, 2000],
    [2000, 5000],
  ] as const) {
    const options = writerOptions(keys, storage, scratch.path, { time, retainMs: 100_000 })
    await using writer = await openWriter(options, signal)
    for (const block of log.blocks(from, to)) await writer.append(block, { signal })
    await writer.settle({ signal })
    await time.advance(70_000)
  }
  const options = { storage, source, trust: keys.reading, record, signal }
  assert.ok((await trimLog(options, { history: 'h1', at: position(4500) })) > 0)
  const [span] = await spansOf(keys, storage)
  assert.deepEqual([span?.first, span?.next], [position(2000), position(5000)])
})

test('every object flipped, cut or deleted in turn is found and named, and never gives wrong bytes', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const time = new ManualTime()
  await fill({ storage, folder: scratch.path, time }, 0, 2450, false)
  await fill({ storage, folder: scratch.path, time }, 2450, 3450)
  // Only what is not covered: a covered part stands in for a damaged fold.
  for (const { key } of (await readTailCovered(storage)).values()) await storage.delete(key)
  const all = await keysIn(storage)
  assert.ok(all.length >= 4)
  const truth = new Map(
    [0, 1, 2, 3].map((n) => [`seg-00000${n}`, log.bytes(n * 1000, n * 1000 + 1000)]),
  )
  const damages: Readonly<Record<string, (bytes: Buffer) => Buffer | undefined>> = {
    'flip at the start': (bytes) => flip(bytes, 40),
    'flip in the record': (bytes) => flip(bytes, 400),
    'flip in the payload': (bytes) => flip(bytes, bytes.length - 30),
    cut: (bytes) => bytes.subarray(0, bytes.length - 1),
    'cut in the header': (bytes) => bytes.subarray(0, 200),
    empty: () => Buffer.alloc(0),
    delete: () => undefined,
  }
  for (const key of all) {
    for (const [what, damage] of Object.entries(damages)) {
      const bad = storage.copy()
      const bytes = damage(await storage.get(key))
      await (bytes ? bad.put(key, bytes) : bad.delete(key))
      const checks = { storage: bad, source, reading: keys.reading, readData: true, signal }
      const findings = await checkLog(checks)
      const last = key === all.at(-1)
      if (bytes)
        assert.ok(
          findings.some(({ object }) => object === key),
          `${what} of ${key}`,
        )
      // The newest object of all can be taken away without a trace; what was before it is whole.
      else if (key !== all[0] && !last) assert.ok(findings.length > 0, `${what} of ${key}`)
      await assertNoWrongBytes(bad, truth)
    }
  }
})

async function readTailCovered(storage: MemStorage) {
  const { stretches } = await readIndex(storage, source, keys.reading, signal)
  return stretches.flatMap(({ segments }) => segments.flatMap(({ spare }) => spare))
}

function flip(bytes: Buffer, at: number): Buffer {
  const bad = Buffer.from(bytes)
  bad[at] = (bad[at] ?? 0) ^ 0x10
  return bad
}

async function assertNoWrongBytes(storage: MemStorage, truth: ReadonlyMap<string, Buffer>) {
  for (const [segment, wanted] of truth) {
    const pieces: Buffer[] = []
    try {
      const reader = await openReader({ storage, source, reading: keys.reading, signal })
      for await (const piece of (await reader.read(segment, { signal })) ?? []) pieces.push(piece)
    } catch (error) {
      if (!isFault(error)) throw error
    }
    const bytes = Buffer.concat(pieces)
    assert.ok(bytes.equals(wanted.subarray(0, bytes.length)), segment)
  }
}

test('a damaged fold is read from its parts while they live', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  await fill({ storage, folder: scratch.path, time: new ManualTime() }, 0, 1000)
  const full = (await keysIn(storage)).find((key) => parseKey(key)?.kind === 'full') ?? ''
  const bytes = await storage.get(full)
  for (const bad of [flip(bytes, bytes.length - 30), bytes.subarray(0, 500)]) {
    await storage.put(full, bad)
    const reader = await openReader({ storage, source, reading: keys.reading, signal })
    const back = await collect(await reader.read('seg-000000', { signal }))
    assert.deepEqual(back, log.bytes(0, 1000))
  }
  await storage.put(full, flip(bytes, 300))
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const from = { history: 'h1', at: position(0) }
  const segments = await Array.fromAsync(reader.segments(from, { signal }))
  assert.deepEqual(
    segments.map(({ first, next, sizeBytes }) => [first, next, sizeBytes]),
    [[position(0), position(1000), 1000]],
  )
})

test('parts that are folded and deleted while they are read are read from the fold', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const filled = { storage, folder: scratch.path, time: new ManualTime() }
  for (const to of [300, 600, 900]) await fill(filled, to - 300, to, false)
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const pieces: Buffer[] = []
  for await (const piece of (await reader.read('seg-000000', { signal })) ?? []) {
    pieces.push(piece)
    if (pieces.length > 1) continue
    await fill(filled, 900, 1000)
    for (const key of await keysIn(storage)) {
      if (parseKey(key)?.kind === 'part') await storage.delete(key)
    }
  }
  assert.deepEqual(Buffer.concat(pieces), log.bytes(0, 1000))
})

test('an object that a stranger made, or took from another place or vault, is refused', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  await fill({ storage, folder: scratch.path, time: new ManualTime() }, 0, 300)
  const [key = ''] = await keysIn(storage)
  const forger = new VaultKeys()
  const other = new MemStorage()
  const reading = { ...keys.reading, identities: [forger.identity] }
  const sealing = { ...forger.sealing, recipients: keys.sealing.recipients }
  {
    const options = { ...writerOptions(forger, other, scratch.path), sealing }
    await using writer = await openWriter(options, signal)
    await writer.append(log.block(0, 300), { signal })
    await writer.flush({ signal })
  }
  const [theirs = ''] = await keysIn(other)
  const moved = key.replace('000000000001-000000000001', '000000000002-000000000002')
  for (const [place, bytes] of [
    [key, await other.get(theirs)],
    [moved, await storage.get(key)],
  ] as const) {
    const bad = storage.copy()
    await bad.put(place, bytes)
    const findings = await checkLog({ storage: bad, source, reading, readData: false, signal })
    assert.ok(findings.some(({ code, object }) => code === 'forged' && object === place))
  }
  const elsewhere = { ...keys.reading, vault: 'vault-2' }
  const found = await checkLog({ storage, source, reading: elsewhere, readData: false, signal })
  assert.deepEqual(
    found.map(({ code }) => code),
    ['forged'],
  )
  assert.ok(existsSync(scratch.path))
})
