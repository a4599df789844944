import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import type { BlobType, IndexedPack } from '../repository.ts'
import { BlobIndex } from './blob-index.ts'
import { BlobTable, hexWords, pendingPack } from './blob-table.ts'
import { decodeIndex, encodeIndex } from './index-file.ts'
import { scanIndex } from './index-scan.kernel.ts'

function randomId(): string {
  return randomBytes(32).toString('hex')
}

function makePacks(packs: number, blobsEach: number): IndexedPack[] {
  return Array.from({ length: packs }, () => {
    const blobs = Array.from({ length: blobsEach }, (_, i) => ({
      id: randomId(),
      type: (i % 7 === 0 ? 'tree' : 'data') as BlobType,
      offset: i * 1000,
      length: 1000,
      plainLength: i % 3 === 0 ? 0 : 2000 + i,
    }))
    return { id: randomId(), blobs }
  })
}

function check(index: BlobIndex, packs: readonly IndexedPack[]): void {
  let count = 0
  for (const pack of packs) {
    for (const { id, type, offset, length, plainLength } of pack.blobs) {
      assert.deepEqual(index.find(type, id), { pack: pack.id, offset, length, plainLength })
      assert.equal(index.find(type === 'tree' ? 'data' : 'tree', id), undefined)
      count++
    }
  }
  assert.equal(index.find('data', randomId()), undefined)
  assert.equal(index.count, count)
  const listed = new Map([...index.entries()].map((entry) => [entry.id, entry]))
  assert.equal(listed.size, count)
  for (const pack of packs) {
    for (const { id, ...blob } of pack.blobs) {
      assert.deepEqual(listed.get(id), { id, pack: pack.id, ...blob })
    }
  }
}

test('the index knows every blob, its type and its place', () => {
  const packs = makePacks(200, 30)
  const index = new BlobIndex()
  for (const pack of packs) index.addPack(pack)
  for (const pack of packs) index.addPack(pack)
  check(index, packs)
  index.clear()
  assert.equal(index.count, 0)
  assert.equal(index.find('data', packs[0]?.blobs[1]?.id ?? ''), undefined)
})

test('the index knows them also when most have gone to disk', () => {
  const packs = makePacks(300, 20)
  const index = new BlobIndex(1000)
  for (const pack of packs) index.addPack(pack)
  assert.ok(index.table.count <= 1000)
  check(index, packs)
  index.clear()
})

test('ids that share their beginning are told apart on disk', () => {
  const index = new BlobIndex(100)
  const blobs = Array.from({ length: 300 }, (_, i) => ({
    id: `${'ab'.repeat(28)}${i.toString(16).padStart(8, '0')}`,
    type: 'data' as const,
    offset: i,
    length: 50,
    plainLength: 0,
  }))
  const packs = blobs.map((blob) => ({ id: randomId(), blobs: [blob] }))
  for (const pack of packs) index.addPack(pack)
  check(index, packs)
  index.clear()
})

test('a blob in two packs has two places, wherever they are kept', () => {
  for (const memoryBlobsMax of [10, 1000]) {
    const index = new BlobIndex(memoryBlobsMax)
    const [one, two] = makePacks(2, 5)
    assert.ok(one && two)
    index.addPack(one)
    for (const pack of makePacks(10, 5)) index.addPack(pack)
    index.addPack({ ...two, blobs: one.blobs })
    const places = [...index.findAll('data', one.blobs[1]?.id ?? '')]
    assert.deepEqual(new Set(places.map((place) => place.pack)), new Set([one.id, two.id]))
    index.clear()
  }
})

test('both ways of reading an index file enter the same', () => {
  const packs = makePacks(30, 20)
  const text = encodeIndex(packs)
  const spaced = JSON.stringify({ supersedes: [], ...(JSON.parse(text) as object) }, undefined, 1)
  for (const form of [text, spaced, text.replace('"offset":0,', '"offset":0.0,')]) {
    const index = new BlobIndex()
    assert.equal(scanIndex(Buffer.from(form)), form === text)
    index.addFile(Buffer.from(form), 'index')
    index.addFile(Buffer.from(form), 'index')
    check(index, packs)
  }
})

test('the quick reader takes no bytes that the general one refuses, and reads them alike', () => {
  const good = Buffer.from(encodeIndex(makePacks(2, 3)))
  let taken = 0
  for (let at = 0; at < good.length; at++) {
    for (const byte of [0x20, 0x2c, 0x30, 0x39, 0x5d, 0x61, 0x67, 0x7d]) {
      const bytes = Buffer.from(good)
      bytes[at] = byte
      if (!scanIndex(bytes)) continue
      taken++
      const wanted = decodeIndex(JSON.parse(bytes.toString()), 'index')
      const index = new BlobIndex()
      index.addFile(bytes, 'index')
      const blobs = new Set(wanted.flatMap((pack) => pack.blobs.map((blob) => blob.id + pack.id)))
      assert.deepEqual(new Set([...index.entries()].map((entry) => entry.id + entry.pack)), blobs)
    }
    assert.equal(scanIndex(good.subarray(0, at)), false)
  }
  assert.ok(taken > 100)
  assert.equal(scanIndex(Buffer.concat([good, Buffer.from('\n')])), false)
})

test('a blob costs at most 64 bytes', () => {
  const before = process.memoryUsage()
  const index = new BlobIndex()
  const worst = { bytes: 0, count: 0 }
  const id = Buffer.alloc(32)
  for (let pack = 0; pack < 20_000; pack++) {
    // As few blobs as a pack of 16 MiB holds when nothing in it compresses.
    const blobs = Array.from({ length: 11 }, (_, i) => {
      id.writeUInt32LE(Math.imul(pack * 11 + i, 2_654_435_761) >>> 0, 0)
      id.writeUInt32LE(pack, 8)
      return { id: id.toString('hex'), type: 'data' as const, offset: i, length: 1, plainLength: 0 }
    })
    index.addPack({ id: randomId(), blobs })
    if (index.count < 50_000) continue
    const bytes = index.sizeBytes / index.count
    if (bytes > worst.bytes) Object.assign(worst, { bytes, count: index.count })
  }
  const after = process.memoryUsage()
  assert.ok(worst.bytes <= 64, `${worst.bytes} bytes a blob at ${worst.count} blobs`)
  const grown = after.arrayBuffers + after.external - before.arrayBuffers - before.external
  assert.ok(grown / index.count < 64 * 2.1, `${grown / index.count} bytes a blob were reserved`)
})

test('of many threads that claim the same blobs each blob goes to exactly one', async () => {
  const index = new BlobIndex()
  const ids = Array.from({ length: 5000 }, randomId)
  const code = `
    import { workerData, parentPort } from 'node:worker_threads'
    const { BlobTable, hexWords } = await import(workerData.module)
    const table = new BlobTable({ shared: workerData.shared })
    const own = workerData.ids.filter((id) => table.claim(hexWords(id), false, 1))
    parentPort.postMessage(own)`
  const module = new URL('./blob-table.ts', import.meta.url).href
  const claims = await Promise.all(
    [1, 2, 3].map(
      () =>
        new Promise<string[]>((resolve, reject) => {
          const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
            workerData: { module, ids, shared: index.table.shared },
          })
          worker.once('message', resolve)
          worker.once('error', reject)
        }),
    ),
  )
  assert.deepEqual(claims.flat().sort(), [...ids].sort())
})

test('claims outlive a move to disk, and places on disk are known to who claims', () => {
  const index = new BlobIndex(100)
  const packs = makePacks(20, 10)
  const id = randomId()
  assert.equal(index.table.claim(hexWords(id), false, 1), true)
  for (const pack of packs) index.addPack(pack)
  const other = new BlobTable({ shared: index.table.shared })
  assert.equal(other.claim(hexWords(id), false, 1), false)
  assert.equal(other.claim(hexWords(id), false, 2), true)
  for (const { blobs } of packs) {
    for (const blob of blobs) {
      assert.equal(other.claim(hexWords(blob.id), blob.type === 'tree', 1), false)
    }
  }
  assert.equal(index.find('data', id), undefined)
  const blob = { id, type: 'data', offset: 5, length: 50, plainLength: 0 } as const
  index.addPack({ id: randomId(), blobs: [blob] })
  assert.equal(index.find('data', id)?.offset, 5)
  assert.notEqual(pendingPack, 0)
  index.clear()
})

test('no thread takes a page of a cleared index for one of the next', () => {
  const index = new BlobIndex(10)
  const other = new BlobTable({ shared: index.table.shared })
  const [one, two, three, four] = makePacks(4, 8)
  assert.ok(one && two && three && four)
  for (const pack of [one, two]) index.addPack(pack)
  const blob = one.blobs[1]
  assert.ok(blob)
  assert.equal(other.claim(hexWords(blob.id), false, 1), false)
  index.clear()
  for (const pack of [three, four]) index.addPack(pack)
  assert.equal(other.claim(hexWords(blob.id), false, 1), true)
  index.clear()
})
