import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Inspection } from '#base/blocks'
import { Fault, isFault } from '#base/faults'
import type { Content } from '#change/tree'
import type { Storage } from '#storage'
import { MemStorage } from '#storage/mem'
import { withFaults } from '#storage/wrap/fault'
import { Scratch } from '../../../test/support/scratch.ts'
import { blockBytes, packBlobsTarget } from './limits.ts'
import { initRepository, openRepository } from './open.ts'
import type { Repository, SavedContent } from './repository.ts'

const { signal } = new AbortController()
const passwordCost = { n: 2, r: 1, p: 1 }

function make(storage: Storage): Promise<Repository> {
  return initRepository(storage, 'secret', { signal, passwordCost })
}

function stream(bytes: Buffer, size = 65_536): Content {
  return {
    kind: 'stream',
    read: async function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
    },
  }
}

function file(path: string): Content {
  return { kind: 'path', path: Buffer.from(path) }
}

/** Loads a saved content from the store, by a repository that is opened anew. */
async function load(storage: Storage, saved: SavedContent): Promise<Buffer> {
  await using repository = await openRepository(storage, 'secret', { signal })
  await repository.loadIndex({ signal })
  const found = new Map<string, Buffer>()
  await repository.loadBlobs(saved.blobs, { signal }, async (id, plain) => {
    found.set(id, plain)
  })
  return Buffer.concat(saved.blobs.map((id) => found.get(id) ?? Buffer.from('missing')))
}

/** The same storage with `put` changed. */
function withPut(storage: Storage, put: Storage['put']): Storage {
  return new Proxy(storage, {
    get(target, name) {
      if (name === 'put') return put
      const value: unknown = Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

test('files small and large, and more streams than workers take, all come back', async () => {
  using scratch = new Scratch('saver')
  const storage = new MemStorage()
  const repository = await make(storage)
  const contents: { content: Content; bytes: Buffer }[] = []
  mkdirSync(scratch.join('d'))
  for (let i = 0; i < 300; i++) {
    const bytes = randomBytes(i % 150 === 7 ? 18_000_000 : i * 10)
    writeFileSync(scratch.join('d', String(i)), bytes)
    contents.push({ content: file(scratch.join('d', String(i))), bytes })
  }
  for (let i = 0; i < 13; i++) {
    const bytes = randomBytes(i * 300_000)
    contents.push({ content: stream(bytes, 1 + i * 40_001), bytes })
  }
  await using saver = await repository.openSaver({ signal, workers: 2 })
  const saved = await Promise.all(contents.map(({ content }) => saver.saveContent(content)))
  const stats = await saver.finish()
  assert.ok(stats.addedBytes > 36_000_000n)
  for (const [i, { bytes }] of contents.entries()) {
    const one = saved[i]
    assert.ok(one)
    assert.equal(one.sizeBytes, BigInt(bytes.length))
    if (i % 10 === 7 || i > 299) assert.ok((await load(storage, one)).equals(bytes), `content ${i}`)
  }
})

test('the same content saved by many at once is stored once', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  const bytes = randomBytes(3_000_000)
  await using saver = await repository.openSaver({ signal, workers: 3 })
  const saved = await Promise.all(
    Array.from({ length: 12 }, () => saver.saveContent(stream(bytes))),
  )
  const stats = await saver.finish()
  assert.equal(stats.addedBytes, 3_000_000n)
  assert.deepEqual(new Set(saved.map((one) => one.blobs.join())).size, 1)
})

test('memory that is given is taken over, be it longer than the blob', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  const bytes = randomBytes(700_000)
  const memory = new ArrayBuffer(800_000, { maxByteLength: 900_000 })
  const given = Buffer.from(memory, 0, bytes.length)
  const kept = Buffer.from(bytes)
  kept[0] = (kept[0] ?? 0) ^ 1
  bytes.copy(given)
  await using saver = await repository.openSaver({ signal })
  const blobs = [
    await saver.saveBlob('data', given, { isGiven: true }),
    await saver.saveBlob('data', kept),
    // Of a part of a memory nobody else's bytes may go.
    await saver.saveBlob('data', kept.subarray(1), { isGiven: true }),
  ]
  await saver.finish()
  assert.equal(memory.byteLength, 0)
  assert.equal(kept.length, bytes.length)
  const saved = await load(storage, { blobs, sizeBytes: 0n })
  assert.ok(saved.equals(Buffer.concat([bytes, kept, kept.subarray(1)])))
})

test('a file that cannot be read fails alone', { timeout: 20_000 }, async () => {
  using scratch = new Scratch('saver')
  const storage = new MemStorage()
  const repository = await make(storage)
  writeFileSync(scratch.join('good'), 'good')
  symlinkSync(scratch.join('good'), scratch.join('link'))
  execFileSync('mkfifo', [scratch.join('fifo')])
  await using saver = await repository.openSaver({ signal })
  const [missing, link, fifo, good] = await Promise.allSettled(
    ['missing', 'link', 'fifo', 'good'].map((name) => saver.saveContent(file(scratch.join(name)))),
  )
  assert.ok(missing?.status === 'rejected' && isFault(missing.reason, 'missing'))
  assert.ok(link?.status === 'rejected' && isFault(link.reason, 'io'))
  assert.ok(fifo?.status === 'rejected' && isFault(fifo.reason, 'io'))
  assert.ok(good?.status === 'fulfilled')
  await saver.finish()
  assert.equal((await load(storage, good.value)).toString(), 'good')
})

test('a stream that breaks off fails alone, and its place is free again', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  await using saver = await repository.openSaver({ signal, workers: 1 })
  const broken: Content = {
    kind: 'stream',
    read: async function* () {
      yield randomBytes(2_000_000)
      throw new Fault('unreachable', 'read source: gone')
    },
  }
  for (let i = 0; i < 9; i++) {
    await assert.rejects(saver.saveContent(broken), (e) => isFault(e, 'unreachable'))
  }
  const bytes = randomBytes(1_000_000)
  const saved = await saver.saveContent(stream(bytes))
  await saver.finish()
  assert.ok((await load(storage, saved)).equals(bytes))
})

test('a failing upload fails the saver, and nothing of it counts', {
  timeout: 20_000,
}, async () => {
  const inner = new MemStorage()
  await make(inner)
  const storage = withPut(inner, async (key, parts, options) => {
    if (key.startsWith('data/')) throw new Fault('full', `put ${key}: no room`)
    return inner.put(key, parts, options)
  })
  const repository = await openRepository(storage, 'secret', { signal })
  {
    await using saver = await repository.openSaver({ signal, workers: 2 })
    const work = async () => {
      for (let i = 0; i < 20; i++) await saver.saveContent(stream(randomBytes(10_000_000)))
      await saver.finish()
    }
    await assert.rejects(work(), (e) => isFault(e, 'full'))
    await assert.rejects(saver.saveBlob('tree', Buffer.from('x')), (e) => isFault(e, 'full'))
  }
  assert.equal((await repository.listFiles('index', { signal })).length, 0)
})

test('what a saver claimed and never stored, the next one stores', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  const bytes = randomBytes(2_000_000)
  const tree = Buffer.from('{"nodes":[]}\n')
  {
    await using saver = await repository.openSaver({ signal })
    await saver.saveContent(stream(bytes))
    await saver.saveBlob('tree', tree)
  }
  await using saver = await repository.openSaver({ signal })
  const saved = await saver.saveContent(stream(bytes))
  const id = await saver.saveBlob('tree', tree)
  const stats = await saver.finish()
  assert.equal(stats.addedBytes, BigInt(bytes.length + tree.length))
  assert.ok((await load(storage, saved)).equals(bytes))
  assert.ok((await repository.loadBlob('tree', id, { signal })).equals(tree))
})

test('an abort ends every call with its reason', { timeout: 20_000 }, async () => {
  const repository = await make(new MemStorage())
  const abort = new AbortController()
  await using saver = await repository.openSaver({ signal: abort.signal, workers: 2 })
  const reason = new Fault('interrupted', 'stop')
  const endless: Content = {
    kind: 'stream',
    read: async function* () {
      const bytes = randomBytes(500_000)
      for (let i = 0; ; i++) {
        if (i === 20) abort.abort(reason)
        bytes.writeUInt32LE(i)
        yield bytes
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
  }
  await assert.rejects(saver.saveContent(endless), (e) => e === reason)
  await assert.rejects(saver.finish(), (e) => e === reason)
})

test('slow uploads hold the workers back', { timeout: 30_000 }, async () => {
  const inner = new MemStorage()
  await make(inner)
  let [running, most] = [0, 0]
  const held: (() => void)[] = []
  const storage = withPut(inner, async (key, parts, options) => {
    if (!key.startsWith('data/')) return inner.put(key, parts, options)
    running++
    most = Math.max(most, running)
    await new Promise<void>((resolve) => held.push(resolve))
    running--
    return inner.put(key, parts, options)
  })
  const repository = await openRepository(storage, 'secret', { signal })
  await using saver = await repository.openSaver({ signal, workers: 1, compression: 'off' })
  let isDone = false
  let read = 0
  const content: Content = {
    kind: 'stream',
    read: async function* () {
      for (let i = 0; i < 300; i++) {
        read += 1_000_000
        yield randomBytes(1_000_000)
      }
    },
  }
  const saving = saver.saveContent(content).then(() => {
    isDone = true
  })
  // Nothing is let through until the reading stands still.
  for (let before = -1; before !== read || held.length === 0; ) {
    before = read
    for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  assert.equal(isDone, false)
  assert.ok(read < 150_000_000, `${read} bytes were read ahead of the store`)
  const pump = setInterval(() => held.splice(0).forEach((release) => release()), 1)
  await saving
  await saver.finish()
  clearInterval(pump)
  assert.ok(most <= 4, `${most} packs were under way at a time`)
})

test('a blob is stored again when that is asked for', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  const plain = Buffer.from('again')
  for (let i = 0; i < 2; i++) {
    await using saver = await repository.openSaver({ signal })
    await saver.saveBlob('data', plain, { again: true })
    assert.equal((await saver.finish()).dataBlobs, 1)
  }
  const again = await openRepository(storage, 'secret', { signal })
  await again.loadIndex({ signal })
  assert.equal(again.blobCount, 2)
})

test('a tree that is larger than any pack is stored alone', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  const tree = randomBytes(40_000_000)
  await using saver = await repository.openSaver({ signal })
  const small = await saver.saveBlob('tree', Buffer.from('small'))
  const ids = [await saver.saveBlob('tree', tree), await saver.saveBlob('tree', tree.subarray(1))]
  await saver.finish()
  assert.ok((await repository.loadBlob('tree', ids[0] ?? '', { signal })).equals(tree))
  assert.ok((await repository.loadBlob('tree', ids[1] ?? '', { signal })).equals(tree.subarray(1)))
  assert.equal((await repository.loadBlob('tree', small, { signal })).toString(), 'small')
})

test('whatever operation a saver dies at, what the indexes list can be read', async () => {
  const contents = [randomBytes(3_000_000), Buffer.from('small'), randomBytes(17_000_000)]
  const save = async (repository: Repository) => {
    await using saver = await repository.openSaver({ signal, workers: 1 })
    for (const bytes of contents) await saver.saveContent(stream(bytes, 1_000_000))
    await saver.saveBlob('tree', Buffer.from('{"nodes":[]}\n'))
    await saver.finish()
  }
  const empty = new MemStorage()
  await make(empty)
  const counted = withFaults(empty.copy())
  await save(await openRepository(counted, 'secret', { signal }))
  const { length } = counted.operations
  assert.ok(length >= 3)
  for (let crashAt = 0; crashAt < length; crashAt++) {
    const left = empty.copy()
    const faulty = withFaults(left, { crashAt })
    await assert.rejects(
      openRepository(faulty, 'secret', { signal }).then((repository) => save(repository)),
    )
    const repository = await openRepository(left, 'secret', { signal })
    await repository.loadIndex({ signal })
    for (const blob of repository.blobs()) await repository.loadBlob(blob.type, blob.id, { signal })
  }
})

test('files in blocks are cut at fixed offsets, inspected, and found again when a page changed', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  await using saver = await repository.openSaver({ signal, workers: 2 })
  const save = async (bytes: Buffer, piece: number, inspection?: Inspection) => {
    const writer = saver.writeBlocks({ inspection })
    for (let at = 0; at < bytes.length; at += piece) {
      // The writer has its own copy: the caller reads the next bytes into the same memory.
      const part = Buffer.from(bytes.subarray(at, at + piece))
      await writer.write(part)
      part.fill(0xee)
    }
    return writer.end()
  }
  const bytes = randomBytes(40 * blockBytes + 5000)
  const module = new URL('testdata/inspector.ts', import.meta.url).href
  const [first, empty] = await Promise.all([
    save(bytes, 32_768, { module, setup: 7 }),
    save(Buffer.alloc(0), 10),
  ])
  assert.equal(first.sizeBytes, bytes.length)
  assert.equal(first.blobs.length, 41)
  assert.deepEqual(empty.blobs, [])
  const said = Array.from({ length: 41 }, (_, i) => {
    const block = bytes.subarray(i * blockBytes, (i + 1) * blockBytes)
    return { first: block[0], last: block.at(-1), offset: i * blockBytes, setup: 7 }
  })
  assert.deepEqual(first.said, said)
  bytes[7 * blockBytes + 77] = (bytes[7 * blockBytes + 77] ?? 0) ^ 1
  const second = await save(bytes, 100_001)
  const differing = second.blobs.flatMap((id, i) => (id === first.blobs[i] ? [] : [i]))
  assert.deepEqual(differing, [7])
  const late = saver.writeBlocks({ offset: 3 * blockBytes - 10 })
  await late.write(bytes.subarray(0, blockBytes))
  assert.equal((await late.end()).blobs.length, 2)
  const stats = await saver.finish()
  assert.equal(stats.dataBlobs, 41 + 1 + 2)
  assert.deepEqual(await load(storage, { ...second, sizeBytes: 0n }), bytes)
})

test('a writer of blocks hears what the saver failed with', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  const lost = new Fault('unreachable', 'store a pack: gone')
  const broken = withPut(storage, () => Promise.reject(lost))
  await using again = await openRepository(broken, 'secret', { signal })
  await repository[Symbol.asyncDispose]()
  await using saver = await again.openSaver({ signal, workers: 1 })
  const writer = saver.writeBlocks()
  await assert.rejects(async () => {
    for (let i = 0; i < 200; i++) await writer.write(randomBytes(blockBytes))
    await writer.end()
  }, lost)
})

test('a pack of tiny blobs is closed once it holds enough of them', async () => {
  const storage = new MemStorage()
  const repository = await make(storage)
  await using saver = await repository.openSaver({ signal, workers: 1 })
  const count = 3 * packBlobsTarget
  for (let at = 0; at < count; at++) await saver.saveBlob('data', Buffer.from(`${at}`))
  await saver.finish()
  const blobs = new Map<string, number>()
  for (const { pack } of repository.blobs()) blobs.set(pack, (blobs.get(pack) ?? 0) + 1)
  // Entries of blobs that did not compress are a tenth shorter.
  const most = Math.max(...blobs.values())
  assert.ok(most >= packBlobsTarget && most < packBlobsTarget * 1.2, `${most}`)
  assert.ok(blobs.size >= 3 && blobs.size <= 5, `${blobs.size}`)
  const sum = [...blobs.values()].reduce((total, each) => total + each, 0)
  assert.equal(sum, count)
})
