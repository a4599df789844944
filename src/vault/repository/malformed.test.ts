import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { Fault, isFault } from '#base/faults'
import { Writer } from '#base/bytes'
import { MemStorage } from '#storage/mem'
import { sha256Hex } from './blob-id.ts'
import { EnvelopeCipher } from './crypto.ts'
import { decodeIndex, encodeIndex } from './index/index-file.ts'
import { createMasterKeys } from './keys.ts'
import { initRepository, openRepository } from './open.ts'
import { decodePack, decodePackHeader, writeHeaderEntry } from './pack.ts'
import { decodeSnapshot } from './snapshots.ts'
import { decodeJson } from './stored-files.ts'

const { signal } = new AbortController()
const passwordCost = { n: 2, r: 1, p: 1 }

/** A small generator, so that a failure can be had again by its seed. */
function dice(seed: number): (limit: number) => number {
  let state = seed * 2_654_435_761 || 1
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}

/** Some bytes changed, cut, doubled or swapped for others. */
function mutate(bytes: Buffer, roll: (limit: number) => number): Buffer {
  const copy = Buffer.from(bytes)
  const at = roll(Math.max(1, copy.length))
  switch (roll(5)) {
    case 0:
      return copy.subarray(0, at)
    case 1:
      return Buffer.concat([copy, copy.subarray(at)])
    case 2:
      copy[at] = roll(256)
      return copy
    case 3:
      copy.fill(roll(256), at, Math.min(copy.length, at + roll(9)))
      return copy
    default:
      return Buffer.concat([copy.subarray(0, at), copy.subarray(at + roll(20))])
  }
}

/** Decoding ends with a value or with a Fault `corrupt` and with nothing else. */
function mayOnlyBeCorrupt(seed: number, decode: () => unknown): void {
  try {
    decode()
  } catch (error) {
    if (!isFault(error, 'corrupt')) throw new Error(`seed ${seed}`, { cause: error })
  }
}

function header(entries: number, roll: (limit: number) => number): Buffer {
  const writer = new Writer()
  for (let i = 0; i < entries; i++) {
    writeHeaderEntry(writer, {
      type: roll(2) === 0 ? 'data' : 'tree',
      id: randomBytes(32),
      length: 32 + roll(1000),
      plainLength: roll(2) * roll(5000),
    })
  }
  return Buffer.from(writer.done())
}

test('headers of packs: any change is refused or read as what it says', () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const roll = dice(seed)
    const bytes = mutate(header(1 + roll(6), roll), roll)
    mayOnlyBeCorrupt(seed, () => decodePackHeader(bytes, roll(4000), 'header'))
  }
})

test('packs: a header that is too long, too short, or does not cover the blobs is refused', () => {
  using cipher = new EnvelopeCipher(createMasterKeys())
  const pack = (plain: Buffer, blobBytes: number, claimed?: number) => {
    const sealed = cipher.seal(plain)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(claimed ?? sealed.length)
    return Buffer.concat([Buffer.alloc(blobBytes), sealed, length])
  }
  const entry = (length: number, type = 0) => {
    const bytes = Buffer.alloc(37)
    bytes[0] = type
    bytes.writeUInt32LE(length, 1)
    return bytes
  }
  assert.equal(decodePack(cipher, pack(entry(40), 40), 'pack').length, 1)
  const bad = {
    'too short': Buffer.alloc(20),
    'no entry': pack(Buffer.alloc(0), 40),
    'a gap': pack(entry(40), 41),
    'an overlap': pack(entry(41), 40),
    'a blob below the envelope': pack(entry(31), 31),
    'an unknown type': pack(entry(40, 4), 40),
    'half an entry': pack(Buffer.concat([entry(40), entry(1).subarray(0, 9)]), 41),
    'a length beyond the pack': pack(entry(40), 40, 2 ** 32 - 1),
    'a length of nothing': pack(entry(40), 40, 0),
  }
  for (const [name, bytes] of Object.entries(bad)) {
    assert.throws(
      () => decodePack(cipher, bytes, 'pack'),
      (e) => isFault(e, 'corrupt'),
      name,
    )
  }
})

test('indexes: round trip, and any change is refused or read as what it says', () => {
  const blob = (type: 'data' | 'tree', plainLength: number) => {
    return { id: sha256Hex(randomBytes(4)), type, offset: 7, length: 99, plainLength }
  }
  const packs = [
    { id: sha256Hex(randomBytes(4)), blobs: [blob('data', 0), blob('data', 200)] },
    { id: sha256Hex(randomBytes(4)), blobs: [blob('tree', 100)] },
  ]
  const text = encodeIndex(packs)
  assert.deepEqual(decodeIndex(JSON.parse(text), 'index'), packs)
  const bytes = Buffer.from(text)
  for (let seed = 1; seed <= 3000; seed++) {
    mayOnlyBeCorrupt(seed, () => decodeIndex(decodeJson(mutate(bytes, dice(seed)), 'i'), 'i'))
  }
})

test('snapshots: any change is refused or read as what it says', () => {
  const text = JSON.stringify({
    time: '2026-01-01T00:00:00Z',
    tree: '00'.repeat(32),
    parent: '11'.repeat(32),
    paths: ['/a', '/b'],
    hostname: 'h',
    tags: ['x'],
    summary: { files_new: 1 },
    later: { unknown: true },
  })
  assert.deepEqual(decodeSnapshot('id', JSON.parse(text))['paths'], ['/a', '/b'])
  for (let seed = 1; seed <= 3000; seed++) {
    const bytes = mutate(Buffer.from(text), dice(seed))
    mayOnlyBeCorrupt(seed, () => decodeSnapshot('id', decodeJson(bytes, 's')))
  }
  for (const value of [null, 3, 'x', [], {}, { time: 1 }, { time: 'x', tree: 'y' }]) {
    assert.throws(
      () => decodeSnapshot('id', value),
      (e) => isFault(e, 'corrupt'),
    )
  }
})

test('compressed JSON is bounded, and an unknown encoding is refused', () => {
  for (const bytes of [
    [],
    [3],
    [1, 2],
    [2],
    [2, 0x28, 0xb5, 0x2f, 0xfd],
    [0x5b],
    [0x7b, 0x7d, 0x7d],
  ]) {
    assert.throws(
      () => decodeJson(Buffer.from(bytes), 'file'),
      (e) => isFault(e, 'corrupt'),
    )
  }
})

test('every stored object, changed in any way, is found out or harmless', async () => {
  const storage = new MemStorage()
  const repository = await initRepository(storage, 'secret', { signal, passwordCost })
  const bytes = randomBytes(700_000)
  const saver = await repository.openSaver({ signal })
  const { blobs } = await saver.saveContent({
    kind: 'stream',
    read: async function* () {
      yield bytes
    },
  })
  const tree = await saver.saveBlob('tree', Buffer.from('{"nodes":[]}\n'))
  await saver.finish()
  await saver[Symbol.asyncDispose]()
  const time = '2026-01-01T00:00:00Z'
  await repository.saveSnapshot({ time, tree, paths: ['/x'] }, { signal })

  const read = async (from: MemStorage) => {
    const opened = await openRepository(from, 'secret', { signal })
    const snapshots = await opened.snapshots({ signal })
    await opened.loadIndex({ signal })
    const plain = await Promise.all(blobs.map((id) => opened.loadBlob('data', id, { signal })))
    const root = await opened.loadBlob('tree', snapshots[0]?.tree ?? '', { signal })
    return Buffer.concat([...plain, root])
  }
  const good = await read(storage)
  const keys: string[] = []
  for await (const { key } of storage.list('')) keys.push(key)
  assert.ok(keys.length >= 6)
  for (const key of keys) {
    const original = await storage.get(key)
    for (let seed = 1; seed <= 12; seed++) {
      const bad = mutate(original, dice(seed))
      const copy = storage.copy()
      await copy.put(key, bad)
      try {
        const got = await read(copy)
        assert.ok(got.equals(good), `${key}, seed ${seed}: wrong bytes were given out`)
      } catch (error) {
        const known = isFault(error, 'corrupt', 'wrong-key', 'missing', 'unreachable')
        if (!known) throw new Error(`${key}, seed ${seed}`, { cause: error })
      }
    }
    const copy = storage.copy()
    await copy.delete(key)
    await assert.rejects(read(copy), (e) => e instanceof Fault, key)
  }
})

test('a key file that asks for absurd work is refused before the work', async () => {
  const storage = new MemStorage()
  await initRepository(storage, 'secret', { signal, passwordCost })
  const [key] = await Array.fromAsync(storage.list('keys/'))
  assert.ok(key)
  const file = JSON.parse((await storage.get(key.key)).toString()) as object
  for (const change of [
    { N: 2 ** 30 },
    { N: 3 },
    { N: 0 },
    { r: 2 ** 17 },
    { p: 1e9 },
    { N: -2 },
    { N: 1.5 },
    { kdf: 'x' },
    { salt: 3 },
    { data: '*' },
  ]) {
    const bytes = Buffer.from(JSON.stringify({ ...file, ...change }))
    await storage.delete(key.key)
    const name = `keys/${sha256Hex(bytes)}`
    await storage.put(name, bytes)
    await assert.rejects(
      openRepository(storage, 'secret', { signal }),
      (e) => isFault(e, 'corrupt'),
      JSON.stringify(change),
    )
    await storage.delete(name)
  }
})
