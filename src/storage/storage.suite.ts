import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Code, isFault } from '#base/faults'
import type { ObjectInfo, Storage } from './storage.ts'

export type SuiteOptions = {
  /** How large a stream must be to be stored in several parts. */
  readonly streamBytes?: number | undefined
}

/** The tests that every object storage must pass; `open` gives an empty one each time. */
export function storageSuite(
  name: string,
  open: () => Promise<Storage>,
  options: SuiteOptions = {},
): void {
  describe(`${name} as object storage`, () => {
    const storageTest: StorageTest = (says, body) => {
      void test(says, async () => {
        await using storage = await open()
        await body(storage)
      })
    }
    testReading(storageTest)
    testListing(storageTest)
    testWriting(storageTest, options.streamBytes ?? 1_000_003)
    testConditions(storageTest)
    testLimits(storageTest)
  })
}

type StorageTest = (says: string, body: (storage: Storage) => Promise<void>) => void

function testReading(storageTest: StorageTest): void {
  storageTest('get() returns what put() stored, whatever the size', async (storage) => {
    for (const size of [0, 1, 4096, 1_000_003]) {
      await storage.put(`data/of-${size}`, pattern(size))
      assert.deepEqual(await storage.get(`data/of-${size}`), pattern(size))
    }
  })

  storageTest('put() joins parts and replaces what was there', async (storage) => {
    await storage.put('a', [Buffer.from('one '), Buffer.alloc(0), Buffer.from('two')])
    assert.equal((await storage.get('a')).toString(), 'one two')
    await storage.put('a', [])
    assert.equal((await storage.get('a')).length, 0)
    await storage.put('a', Buffer.from('longer than before'))
    assert.equal((await storage.get('a')).toString(), 'longer than before')
  })

  storageTest('get() reads ranges and refuses those beyond the end', async (storage) => {
    const bytes = pattern(10_000)
    await storage.put('a/b', bytes)
    assert.deepEqual(await storage.get('a/b', { start: 5, end: 9 }), bytes.subarray(5, 9))
    assert.deepEqual(await storage.get('a/b', { start: 9_999 }), bytes.subarray(9_999))
    assert.deepEqual(await storage.get('a/b', { end: 1 }), bytes.subarray(0, 1))
    assert.equal((await storage.get('a/b', { start: 10_000 })).length, 0)
    assert.equal((await storage.get('a/b', { start: 7, end: 7 })).length, 0)
    await rejects(storage.get('a/b', { start: 9_000, end: 10_001 }), 'corrupt')
    await rejects(storage.get('a/b', { start: 20_000, end: 20_001 }), 'corrupt')
    await rejects(storage.get('a/b', { start: 5, end: 4 }), 'usage')
  })

  storageTest('stream() gives the bytes from any start and may be broken off', async (storage) => {
    const bytes = pattern(700_001)
    await storage.put('s', bytes)
    assert.deepEqual(await readAll(storage.stream('s')), bytes)
    assert.deepEqual(
      await readAll(storage.stream('s', { start: 699_000 })),
      bytes.subarray(699_000),
    )
    assert.equal((await readAll(storage.stream('s', { start: 700_001 }))).length, 0)
    await rejects(readAll(storage.stream('s', { start: 700_002 })), 'corrupt')
    for (let i = 0; i < 3; i++) for await (const _ of storage.stream('s')) break
    await storage.put('empty', [])
    assert.equal((await readAll(storage.stream('empty'))).length, 0)
  })

  storageTest('an object that is not there is missing', async (storage) => {
    await storage.put('there/one', pattern(1))
    for (const key of ['nowhere', 'there/two', 'there', 'no/where/at/all']) {
      await rejects(storage.get(key), 'missing')
      await rejects(storage.get(key, { start: 3, end: 5 }), 'missing')
      await rejects(readAll(storage.stream(key)), 'missing')
      assert.equal(await storage.stat(key), undefined)
      await storage.delete(key)
    }
    assert.equal((await storage.get('there/one')).length, 1)
  })

  storageTest('stat() tells size and time', async (storage) => {
    await storage.put('a', pattern(12_345))
    const info = await storage.stat('a')
    assert.deepEqual([info?.key, info?.sizeBytes], ['a', 12_345])
    assert.ok(Math.abs((info?.modifiedMs ?? 0) - Date.now()) < 86_400_000, 'time is about now')
  })

  storageTest('bytes are nobody else’s after the call', async (storage) => {
    const bytes = pattern(100)
    await storage.put('a', bytes)
    bytes.fill(0)
    const read = await storage.get('a')
    assert.deepEqual(read, pattern(100))
    read.fill(0)
    assert.deepEqual(await storage.get('a'), pattern(100))
  })
}

function testListing(storageTest: StorageTest): void {
  storageTest('list() sorts whole keys by bytes, by prefix, behind a key', async (storage) => {
    const below = ['a-b', 'a/b/c', 'a/b-c', 'a/b.c', 'a0'].map((key) => `b/${key}`)
    const others = ['A', 'a', 'a-b', 'a.b', 'a0', 'b-c/x', 'b.c/x', 'b0/x', 'z=1+2_3']
    const keys = [...below, ...others, 'data/00/aa', 'data/00/ab', 'data/0', 'data/ff/00']
    for (const key of keys.toReversed()) await storage.put(key, pattern(key.length))
    const sorted = keys.toSorted()
    const infos = await collect(storage.list(''))
    assert.deepEqual(names(infos), sorted)
    for (const info of infos) assert.equal(info.sizeBytes, info.key.length)
    const prefixes = [
      'a',
      'b',
      'b/',
      'b/a/b',
      'b/a/',
      'data/',
      'data/0',
      'data/00/a',
      'nothing',
      'b/x/',
    ]
    for (const prefix of prefixes) {
      const wanted = sorted.filter((key) => key.startsWith(prefix))
      assert.deepEqual(names(await collect(storage.list(prefix))), wanted, `prefix ${prefix}`)
    }
    for (const after of [...sorted, 'b', 'b/a/', 'b/a/b/', 'data/00', 'data/00/', '~']) {
      const wanted = sorted.filter((key) => key > after)
      assert.deepEqual(names(await collect(storage.list('', { after }))), wanted, `after ${after}`)
      const some = wanted.filter((key) => key.startsWith('b/'))
      assert.deepEqual(names(await collect(storage.list('b/', { after }))), some, `after ${after}`)
    }
  })

  storageTest('list() of nothing is empty, and may be broken off', async (storage) => {
    assert.deepEqual(await collect(storage.list('')), [])
    await Promise.all(Array.from({ length: 40 }, (_, i) => storage.put(`k/${i}`, pattern(i))))
    for await (const info of storage.list('k/')) {
      assert.equal(info.key, 'k/0')
      break
    }
    assert.equal((await collect(storage.list('k/'))).length, 40)
  })

  storageTest('delete() takes an object out of listings', async (storage) => {
    for (const key of ['d/1', 'd/2', 'd/3']) await storage.put(key, pattern(3))
    await storage.delete('d/2')
    await storage.delete('d/2')
    assert.deepEqual(names(await collect(storage.list('d/'))), ['d/1', 'd/3'])
    assert.equal(await storage.stat('d/2'), undefined)
  })
}

function testWriting(storageTest: StorageTest, streamBytes: number): void {
  storageTest('putStream() stores a stream of any size', async (storage) => {
    await storage.putStream('none', chunks(Buffer.alloc(0), 1))
    assert.equal((await storage.get('none')).length, 0)
    await storage.putStream('few', chunks(pattern(1_000), 7))
    assert.deepEqual(await storage.get('few'), pattern(1_000))
    const bytes = pattern(streamBytes)
    await storage.putStream('many', chunks(bytes, 99_991))
    assert.ok(bytes.equals(await readAll(storage.stream('many'))), 'the same bytes')
    assert.equal((await storage.stat('many'))?.sizeBytes, streamBytes)
  })

  storageTest('putStream() stores nothing when its source fails', async (storage) => {
    await storage.put('old', Buffer.from('old'))
    const failure = Object.assign(new Error('the source failed'), { code: 'ENOENT' })
    async function* failing() {
      yield* chunks(pattern(streamBytes), 65_536)
      throw failure
    }
    for (const key of ['old', 'new/one']) {
      await assert.rejects(storage.putStream(key, failing()), (error) => error === failure)
    }
    assert.equal((await storage.get('old')).toString(), 'old')
    assert.deepEqual(names(await collect(storage.list(''))), ['old'])
  })

  storageTest('readers see an old object or a new one, never a mixture', async (storage) => {
    const values = [Buffer.alloc(200_000, 1), Buffer.alloc(100_000, 2), Buffer.alloc(300_000, 3)]
    await storage.put('same', values[0] ?? [])
    await Promise.all([
      ...values.map((value) => storage.put('same', value)),
      ...Array.from({ length: 10 }, async () => {
        const read = await storage.get('same')
        assert.ok(
          values.some((value) => value.equals(read)),
          `${read.length} bytes are whole`,
        )
      }),
    ])
  })

  storageTest('calls may overlap', async (storage) => {
    const keys = Array.from({ length: 50 }, (_, i) => `c/${String(i).padStart(2, '0')}/o`)
    await Promise.all(keys.map((key, i) => storage.put(key, pattern(1000 + i))))
    const read = await Promise.all(keys.map((key) => storage.get(key)))
    read.forEach((bytes, i) => assert.deepEqual(bytes, pattern(1000 + i)))
    assert.deepEqual(names(await collect(storage.list('c/'))), keys)
  })
}

function testConditions(storageTest: StorageTest): void {
  storageTest('ifAbsent lets one writer win and keeps what is there', async (storage) => {
    if (!storage.can.conditionalPut) {
      await rejects(storage.put('a', pattern(1), { ifAbsent: true }), 'unsupported')
      await rejects(
        storage.putStream('a', chunks(pattern(9), 3), { ifAbsent: true }),
        'unsupported',
      )
      return
    }
    await storage.put('once', Buffer.from('first'), { ifAbsent: true })
    await rejects(storage.put('once', Buffer.from('second'), { ifAbsent: true }), 'exists')
    const second = chunks(Buffer.from('second'), 2)
    await rejects(storage.putStream('once', second, { ifAbsent: true }), 'exists')
    assert.equal((await storage.get('once')).toString(), 'first')
    const racers = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        storage.put('race/lease', Buffer.from(`racer ${i}`), { ifAbsent: true }),
      ),
    )
    const won = racers.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []))
    assert.equal(won.length, 1, 'one racer wins')
    for (const result of racers) {
      if (result.status === 'rejected') assert.ok(isFault(result.reason, 'exists'), result.reason)
    }
    assert.equal((await storage.get('race/lease')).toString(), `racer ${won[0]}`)
    await storage.delete('once')
    await storage.putStream('once', chunks(Buffer.from('third'), 2), { ifAbsent: true })
    assert.equal((await storage.get('once')).toString(), 'third')
  })

  storageTest('retention forbids deletion where there is any', async (storage) => {
    const retainUntilMs = Date.now() + 3_600_000
    if (!storage.can.retention) {
      await rejects(storage.put('a', pattern(1), { retainUntilMs }), 'unsupported')
      return
    }
    await storage.put('kept/a', pattern(10), { retainUntilMs })
    await storage.putStream('kept/b', chunks(pattern(99), 10), { retainUntilMs })
    for (const key of ['kept/a', 'kept/b']) await rejects(storage.delete(key), 'denied')
    assert.deepEqual(await storage.get('kept/a'), pattern(10))
    assert.deepEqual(await storage.get('kept/b'), pattern(99))
  })
}

function testLimits(storageTest: StorageTest): void {
  storageTest('a key that is none is refused before anything happens', async (storage) => {
    const bad = [
      '',
      '/',
      'a/',
      '/a',
      'a//b',
      '.',
      '..',
      '../a',
      'a/../b',
      'a/./b',
      'a b',
      'ä',
      'a\n',
    ]
    for (const key of [...bad, 'a\0', 'a\\b', '.redoubt-x', 'x/.redoubt-tmp-1', 'x'.repeat(256)]) {
      await rejects(storage.put(key, pattern(1)), 'usage')
      await rejects(storage.putStream(key, chunks(pattern(1), 1)), 'usage')
      await rejects(storage.get(key), 'usage')
      await rejects(readAll(storage.stream(key)), 'usage')
      await rejects(storage.stat(key), 'usage')
      await rejects(storage.delete(key), 'usage')
    }
    for (const prefix of ['../', '/', 'a//', 'a b', './']) {
      await rejects(collect(storage.list(prefix)), 'usage')
    }
    const longest = [...Array.from({ length: 3 }, () => 'l'.repeat(255)), 'end'].join('/')
    await storage.put(longest, pattern(2))
    assert.deepEqual(names(await collect(storage.list(''))), [longest])
  })

  storageTest('an aborted call rejects with the reason and stores nothing', async (storage) => {
    await storage.put('a', pattern(300_000))
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    const calls = [
      () => storage.put('b', pattern(10), { signal }),
      () => storage.putStream('b', chunks(pattern(10), 2), { signal }),
      () => storage.get('a', { signal }),
      () => storage.stat('a', { signal }),
      () => storage.delete('a', { signal }),
      () => readAll(storage.stream('a', { signal })),
      () => collect(storage.list('', { signal })),
    ]
    for (const call of calls) await assert.rejects(call, (error) => error === reason)
    assert.deepEqual(names(await collect(storage.list(''))), ['a'])
    const later = new AbortController()
    async function* aborting() {
      yield pattern(10)
      later.abort(reason)
      yield pattern(10)
    }
    const put = storage.putStream('b', aborting(), { signal: later.signal })
    await assert.rejects(put, (error) => error === reason)
    assert.equal(await storage.stat('b'), undefined)
  })
}

/** Bytes that differ from place to place. */
export function pattern(size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size)
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >>> 8) * 7 + (i >>> 16)) & 0xff
  return bytes
}

/** A stream of a buffer, in pieces of that size. */
export async function* chunks(
  bytes: Buffer,
  sizeBytes: number,
): AsyncGenerator<Buffer, void, void> {
  for (let at = 0; at < bytes.length; at += sizeBytes) yield bytes.subarray(at, at + sizeBytes)
}

export async function readAll(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(source))
}

export function collect(list: AsyncIterable<ObjectInfo>): Promise<ObjectInfo[]> {
  return Array.fromAsync(list)
}

function names(infos: readonly ObjectInfo[]): string[] {
  return infos.map((info) => info.key)
}

/** Checks that a call fails with a Fault of that code. */
export async function rejects(call: Promise<unknown>, code: Code): Promise<void> {
  await assert.rejects(call, (error) => {
    assert.ok(isFault(error), `a Fault, not ${String(error)}`)
    assert.equal(error.code, code, error.message)
    return true
  })
}
