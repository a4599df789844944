import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemStorage } from '#storage/mem'
import type { ObjectInfo, Storage } from '#storage'
import {
  collect,
  FakeLog,
  position,
  readBack,
  source,
  spansOf,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { ManualTime } from '../../../test/support/manual-time.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { checkLog } from './check.ts'
import { newestLease, refreshEveryMs } from './lease.ts'
import type { StoredObject } from './inventory.ts'
import { parseKey } from './names.ts'
import { sealPart } from './object.ts'
import { openReader } from './reader.ts'
import { listFrom, readTail } from './tail.ts'
import { trimLog } from './trim.ts'
import { openWriter, type WriterOptions } from './writer.ts'

const { signal } = new AbortController()
const keys = new VaultKeys()
const log = new FakeLog()

/** Counts listings and what they yield; keys that are hidden are in none of them, though they can be read. */
class Listings implements Storage {
  readonly url = 'mem:'
  readonly can: Storage['can']
  readonly #inner: MemStorage
  readonly hidden = new Set<string>()
  requests = 0
  listed = 0

  constructor(inner: MemStorage) {
    this.#inner = inner
    this.can = inner.can
  }

  async *list(prefix: string, options?: { readonly after?: string }): AsyncGenerator<ObjectInfo> {
    this.requests += 1
    for await (const info of this.#inner.list(prefix, options)) {
      if (this.hidden.has(info.key)) continue
      this.listed += 1
      yield info
    }
  }

  put: Storage['put'] = (...args) => this.#inner.put(...args)
  putStream: Storage['putStream'] = (...args) => this.#inner.putStream(...args)
  get: Storage['get'] = (...args) => this.#inner.get(...args)
  stream: Storage['stream'] = (...args) => this.#inner.stream(...args)
  stat: Storage['stat'] = (...args) => this.#inner.stat(...args)
  delete: Storage['delete'] = (...args) => this.#inner.delete(...args)
  async [Symbol.asyncDispose]() {}
}

async function keysIn(storage: Storage, kind?: string): Promise<string[]> {
  const found: string[] = []
  for await (const { key } of storage.list(`log/${source}/`)) {
    const name = parseKey(key)
    if (name && (kind === undefined || name.kind === kind)) found.push(key)
  }
  return found
}

async function fill(
  storage: Storage,
  folder: string,
  range: readonly [number, number],
  more: Partial<WriterOptions> & { readonly from?: FakeLog } = {},
): Promise<void> {
  const { from = log, ...options } = more
  await using writer = await openWriter(
    writerOptions(keys, storage, folder, { listingLateMs: 0, ...options }),
    signal,
  )
  for (const block of from.blocks(...range)) await writer.append(block, { signal })
  await writer.settle({ signal })
}

const find = (storage: Storage, trimmedTo?: number) =>
  checkLog({ storage, source, reading: keys.reading, readData: true, trimmedTo, signal })

const leaseOf = (storage: Storage) =>
  newestLease({ storage, source, keyring: keys.keyring }, signal)

/** Thousands of segments that are never looked into, and behind them one that is. */
async function longLog(storage: MemStorage, segments: number): Promise<void> {
  for (let number = 1; number < segments; number++) {
    const at = (number - 1) * 1000
    const [segment, first] = [log.segment(at), position(at)]
    const numbers = [0, number, number].map((one) => String(one).padStart(12, '0')).join('-')
    const name = `${first}-${segment.replaceAll('-', '=2D')}-${numbers}.full.zst.age`
    await storage.put(`log/${source}/h1/${name}`, Buffer.from('x'))
  }
  const { bytes, first, next, segment } = log.block((segments - 1) * 1000, segments * 1000)
  const draft = {
    kind: 'full',
    source,
    history: 'h1',
    segment,
    offset: 0,
    sizeBytes: bytes.length,
    first,
    next,
    closes: true,
    sequenceFirst: segments,
    sequenceLast: segments,
    previous: '0'.repeat(64),
    link: '1'.repeat(64),
    hole: false,
    commits: 0,
    epoch: 1,
  } as const
  const sealed = sealPart(draft, { first, next, commits: [], bytes }, keys.sealing, 1)
  await storage.put(sealed.key, sealed.bytes)
}

test('an archiver that opens a long log lists its end only, and all of it when nobody told where that is', async () => {
  using scratch = new Scratch('ends')
  const inner = new MemStorage()
  const segments = 20_000
  await longLog(inner, segments)
  const storage = new Listings(inner)
  const from = segments * 1000
  await fill(storage, scratch.path, [from, from + 2500])
  assert.ok(storage.listed > segments, 'the first one knew nothing')
  storage.listed = 0
  storage.requests = 0
  await fill(storage, scratch.path, [from + 2500, from + 3100])
  assert.ok(storage.listed < 60, `${storage.listed} objects listed`)
  assert.ok(storage.requests < 12, `${storage.requests} listings`)
  const { sequence, last } = await readTail({ storage, source, trust: keys.reading }, signal)
  assert.equal(last?.record.next, position(from + 3100))
  assert.equal((await leaseOf(storage))?.tail?.sequence, sequence)
})

test('a lease that names what is not there any more, or comes from before a change of history, misleads nobody', async () => {
  using scratch = new Scratch('ends')
  const storage = new MemStorage()
  await fill(storage, scratch.path, [0, 3500])
  const lease = await leaseOf(storage)
  const known = lease?.tail?.from
  assert.ok(known)
  const trust = keys.reading
  const gone = { ...known, first: position(9000) }
  for (const from of [undefined, known, gone, { ...known, history: 'h0' }]) {
    const tail = await readTail({ storage, source, trust, from }, signal)
    assert.equal(tail.last?.record.next, position(3500))
  }
  // The log goes to another history, and comes back: what a lease of before says is still enough.
  for (const [history, range] of [
    ['h2', [4000, 6500]],
    ['h1', [7000, 9500]],
  ] as const) {
    await fill(storage, scratch.path, range, { from: new FakeLog({ history }) })
    const newest = (await leaseOf(storage))?.tail?.from
    for (const from of [known, newest]) {
      const tail = await readTail({ storage, source, trust, from }, signal)
      assert.deepEqual(tail.last?.record.next, position(range[1]))
      assert.equal(tail.last.record.history, history)
    }
  }
})

test('what is open in a history of its own is found again, however often an archiver only opened the log', async () => {
  using scratch = new Scratch('ends')
  const storage = new MemStorage()
  await fill(storage, scratch.path, [0, 2500])
  const from = new FakeLog({ history: 'h2' })
  await fill(storage, scratch.path, [3000, 3300], { from })
  for (const to of [3300, 3300, 3600]) {
    await fill(storage, scratch.path, [3300, to], { from })
    const hint = (await leaseOf(storage))?.tail?.from
    const how = { storage, source, trust: keys.reading, from: hint }
    assert.equal((await readTail(how, signal)).last?.record.next, position(to))
  }
})

test('listFrom() goes back to the oldest object that is to be deleted, and passes over no history that has one', () => {
  const object = (history: string, sequence: number): StoredObject => ({
    kind: 'part',
    source,
    history,
    first: position(sequence),
    segment: 's',
    offset: 0,
    sequenceFirst: sequence,
    sequenceLast: sequence,
    key: '',
    sizeBytes: 0,
    modifiedMs: 0,
  })
  const full = object('h4', 40)
  const deletable = [object('h2', 20), object('h3', 30)]
  const log = [10, 20, 30].map((at) => ({ history: `h${at / 10}`, first: position(at) }))
  const past = [{ history: 'h1', first: position(10) }]
  assert.deepEqual(listFrom(full, deletable, log), { history: 'h2', first: position(20), past })
  const here = { history: 'h4', first: position(40) }
  assert.deepEqual(listFrom(full, [], log), { ...here, past: log })
})

test('what an archiver had still to delete when it died is found from where its lease says', async () => {
  using scratch = new Scratch('ends')
  const storage = new MemStorage()
  await fill(storage, scratch.path, [0, 2500])
  await fill(storage, scratch.path, [2500, 4200])
  const whole = await readTail({ storage, source, trust: keys.reading }, signal)
  const from = (await leaseOf(storage))?.tail?.from
  const short = await readTail({ storage, source, trust: keys.reading, from }, signal)
  assert.ok(whole.covered.length > 0)
  assert.deepEqual(short.covered, whole.covered)
})

test('newest objects that are gone are found by a check and told of by the span, until the log is there again', async () => {
  using scratch = new Scratch('ends')
  const storage = new MemStorage()
  await fill(storage, scratch.path, [0, 4500])
  assert.deepEqual(await find(storage, 0), [])
  for (const key of await keysIn(storage)) {
    if ((parseKey(key)?.first ?? '') >= position(3000)) await storage.delete(key)
  }
  const gone = async () => {
    const findings = await find(storage, 0)
    assert.deepEqual(
      findings.map(({ severity, code }) => [severity, code]),
      [['damaged', 'gap']],
    )
    assert.match(findings[0]?.said ?? '', /stored up to 0+4500 .* followed 0+3000 is gone/)
    assert.deepEqual((await spansOf(keys, storage)).at(-1)?.gone, {
      history: 'h1',
      at: position(4500),
    })
  }
  await gone()
  // The next archiver does not forget it, as long as the log has not been there again.
  await fill(storage, scratch.path, [3000, 3000])
  await gone()
  await fill(storage, scratch.path, [3000, 5000])
  assert.deepEqual(await find(storage, 0), [])
  assert.equal((await spansOf(keys, storage)).at(-1)?.gone, undefined)
  assert.ok((await readBack(keys, storage)).equals(log.bytes(0, 5000)))
})

test('a log that is gone altogether, and one whose lease is gone, are findings', async () => {
  using scratch = new Scratch('ends')
  const storage = new MemStorage()
  await fill(storage, scratch.path, [0, 2500])
  const bare = storage.copy()
  for (const key of await keysIn(bare)) await bare.delete(key)
  assert.match((await find(bare, 0))[0]?.said ?? '', /stored up to 0+2500 .* its beginning is gone/)
  const lease = `log/${source}/=lease/00000001`
  for (const damage of [() => storage.put(lease, Buffer.from('{')), () => storage.delete(lease)]) {
    await damage()
    const findings = await find(storage, 0)
    assert.deepEqual(
      findings.map(({ severity, code, object }) => [severity, code, object]),
      [['warns', 'missing', lease]],
    )
  }
})

test('oldest objects that are gone are a loss, unless a trim recorded them', async () => {
  using scratch = new Scratch('ends')
  const storage = new MemStorage()
  await fill(storage, scratch.path, [0, 4500])
  const lost = storage.copy()
  for (const key of await keysIn(lost)) {
    if ((parseKey(key)?.first ?? '') < position(2000)) await lost.delete(key)
  }
  const [finding] = await find(lost, 0)
  assert.deepEqual([finding?.severity, finding?.code], ['damaged', 'gap'])
  assert.match(finding?.said ?? '', /no trim removed them/)
  let recorded = 0
  const before = (await keysIn(storage)).length
  const record = async (sequence: number) => {
    recorded = sequence
    // Recorded first: a trim that is broken off leaves nothing unexplained.
    assert.equal((await keysIn(storage)).length, before)
  }
  const trim = { storage, source, trust: keys.reading, record, signal }
  assert.ok((await trimLog(trim, { history: 'h1', at: position(2500) })) > 0)
  assert.ok(recorded > 0)
  assert.deepEqual(await find(storage, recorded), [])
  assert.equal((await find(storage, recorded - 1)).length, 1)
})

test('a store that lists late: nothing is taken for lost that is there, and nothing is deleted', async () => {
  using scratch = new Scratch('ends')
  const inner = new MemStorage()
  const storage = new Listings(inner)
  await fill(storage, scratch.path, [0, 3500], { partBytesMax: 170 })
  const parts = (await keysIn(inner, 'part')).filter(
    (key) => (parseKey(key)?.first ?? '') >= position(3000),
  )
  assert.ok(parts.length >= 3)
  // One number is missing from the listing, then the whole end: in both cases it comes in time.
  for (const hide of [parts.slice(0, 1), parts]) {
    for (const key of hide) storage.hidden.add(key)
    const time = new ManualTime()
    const options = writerOptions(keys, storage, scratch.path, { time })
    const opening = openWriter(options, signal)
    void time.sleep(4000).then(() => storage.hidden.clear())
    await using writer = await time.run(opening)
    assert.equal(storage.hidden.size, 0)
    assert.deepEqual(writer.end, { history: 'h1', at: position(3500) })
  }
  assert.deepEqual(
    (await keysIn(inner, 'part')).filter((key) => parts.includes(key)),
    parts,
  )
  assert.deepEqual(await find(storage, 0), [])
  assert.ok((await readBack(keys, storage)).equals(log.bytes(0, 3500)))
})

test('a store that lists a part late for ever: the log goes on from the source, and is whole', async () => {
  using scratch = new Scratch('ends')
  const inner = new MemStorage()
  const storage = new Listings(inner)
  await fill(storage, scratch.path, [0, 3300], { partBytesMax: 170 })
  const [last = ''] = (await keysIn(inner, 'part')).slice(-1)
  storage.hidden.add(last)
  const time = new ManualTime()
  const options = writerOptions(keys, storage, scratch.path, { time })
  await using writer = await time.run(openWriter(options, signal))
  const end = Number(writer.end?.at)
  assert.ok(end < 3300)
  // Its name is taken: this archiver fails, and none of its parts enters the chain.
  const work = async () => {
    for (const block of log.blocks(end, 4400)) await writer.append(block, { signal })
    await writer.flush({ signal })
  }
  await assert.rejects(time.run(work()), /another archiver wrote it first|conflict/)
  storage.hidden.clear()
  await writer[Symbol.asyncDispose]()
  await fill(storage, scratch.path, [3300, 4400])
  assert.deepEqual(await find(storage, 0), [])
  assert.ok((await readBack(keys, storage)).equals(log.bytes(0, 4400)))
})

test('the lease tells at once that durability is less than asked for, since when, and when it is had again', async () => {
  using scratch = new Scratch('ends')
  const storage = new MemStorage()
  const time = new ManualTime()
  const options = writerOptions(keys, storage, scratch.path, { time })
  const told = async () => (await leaseOf(storage))?.degraded
  const state = { said: 'commits do not wait', sinceMs: 1_700_000_000_000 }
  {
    await using writer = await openWriter(options, signal)
    assert.equal(await told(), undefined)
    writer.degraded(state)
    await time.advance(0)
    assert.deepEqual(await told(), state)
    await time.advance(refreshEveryMs)
    assert.deepEqual(await told(), state, 'with every refresh')
    writer.degraded(undefined)
    await time.advance(0)
    assert.equal(await told(), undefined)
    writer.degraded(state)
    await time.advance(0)
    assert.deepEqual(await told(), state)
  }
  assert.equal(await told(), undefined, 'who stops in good order has no commits that could wait')
})

test('a reader of a long log that asks for what is not there yet lists the end only, and finds what came', async () => {
  using scratch = new Scratch('ends')
  const inner = new MemStorage()
  const segments = 20_000
  await longLog(inner, segments)
  const storage = new Listings(inner)
  const from = segments * 1000
  await fill(storage, scratch.path, [from, from + 300])
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const read = async (at: number) => collect(await reader.read(log.segment(at), { signal }))
  const lookCheaply = async (at: number) => {
    storage.listed = 0
    const bytes = await read(at)
    assert.ok(storage.listed < 60, `${storage.listed} objects listed`)
    return bytes
  }
  assert.equal((await lookCheaply(from)).length, 300)
  assert.equal((await lookCheaply(from + 1000)).length, 0)
  // The open segment grows and is folded, another history begins, and the first one goes on beside it.
  await fill(storage, scratch.path, [from + 300, from + 2500])
  assert.ok((await lookCheaply(from)).equals(log.bytes(from, from + 1000)))
  assert.ok((await lookCheaply(from + 2000)).equals(log.bytes(from + 2000, from + 2500)))
  const other = new FakeLog({ history: 'h2' })
  {
    await using writer = await openWriter(
      writerOptions(keys, storage, scratch.path, { listingLateMs: 0 }),
      signal,
    )
    const first = from + 3000
    await writer.append(other.block(first, first + 400), { signal })
    await writer.flush({ signal })
  }
  assert.ok((await lookCheaply(from + 3000)).equals(other.bytes(from + 3000, from + 3400)))
  // What was there before is still known, and read: these are no real objects.
  await assert.rejects(lookCheaply(0), /first line is not that of age/)
})
