import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { MemStorage } from '#storage/mem'
import { Crash, withFaults } from '#storage/wrap/fault'
import { initRepository, openRepository } from './open.ts'
import type { Repository } from './repository.ts'

const { signal } = new AbortController()
/** The cheapest that scrypt does: the tests are not about its cost. */
const passwordCost = { n: 2, r: 1, p: 1 }

async function* pieces(bytes: Buffer, size = 100_003): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function save(repository: Repository, contents: readonly Buffer[]): Promise<string[][]> {
  await using saver = await repository.openSaver({ signal })
  const saved = contents.map((bytes) =>
    saver.saveContent({ kind: 'stream', read: () => pieces(bytes) }),
  )
  const blobs = (await Promise.all(saved)).map((content) => [...content.blobs])
  await saver.finish()
  return blobs
}

async function load(repository: Repository, blobs: readonly string[]): Promise<Buffer> {
  const found = new Map<string, Buffer>()
  await repository.loadBlobs(blobs, { signal }, async (id, plain) => {
    found.set(id, plain)
  })
  return Buffer.concat(blobs.map((id) => found.get(id) ?? Buffer.alloc(0)))
}

test('a repository gives back what was saved, also when it is opened again', async () => {
  const storage = new MemStorage()
  const contents = [
    randomBytes(5_000_000),
    Buffer.alloc(3_000_000),
    Buffer.from('x'),
    Buffer.alloc(0),
  ]
  const first = await initRepository(storage, 'secret', { signal, passwordCost })
  const blobs = await save(first, contents)
  assert.deepEqual(blobs[3], [])

  const again = await openRepository(storage, 'secret', { signal })
  assert.equal(again.id, first.id)
  await again.loadIndex({ signal })
  for (const [i, ids] of blobs.entries()) {
    assert.ok((await load(again, ids)).equals(contents[i] ?? Buffer.alloc(1)))
  }
})

test('saving the same content again stores nothing', async () => {
  const storage = new MemStorage()
  const repository = await initRepository(storage, 'secret', { signal, passwordCost })
  const bytes = randomBytes(3_000_000)
  const [before] = await save(repository, [bytes])
  const again = await openRepository(storage, 'secret', { signal })
  await again.loadIndex({ signal })
  await using saver = await again.openSaver({ signal })
  const { blobs } = await saver.saveContent({ kind: 'stream', read: () => pieces(bytes, 77) })
  assert.deepEqual(blobs, before)
  const stats = await saver.finish()
  assert.deepEqual(stats, { dataBlobs: 0, treeBlobs: 0, addedBytes: 0n, storedBytes: 0n })
})

test('a wrong password, no repository, and a second one are told apart', async () => {
  const storage = new MemStorage()
  await assert.rejects(openRepository(storage, 'x', { signal }), (e) => isFault(e, 'missing'))
  await initRepository(storage, 'secret', { signal, passwordCost })
  await assert.rejects(openRepository(storage, 'x', { signal }), (e) => isFault(e, 'wrong-key'))
  await assert.rejects(initRepository(storage, 'secret', { signal, passwordCost }), (e) =>
    isFault(e, 'exists'),
  )
})

test('keys are added, changed and removed, the one in use never', async () => {
  const storage = new MemStorage()
  const repository = await initRepository(storage, 'one', { signal, passwordCost })
  const second = await repository.addKey('two', { signal })
  assert.equal((await repository.listKeys({ signal })).length, 2)
  await assert.rejects(repository.removeKey(repository.keyId, { signal }), (e) =>
    isFault(e, 'refused'),
  )
  const other = await openRepository(storage, 'two', { signal, passwordCost })
  assert.equal(other.keyId, second)
  await other.removeKey(repository.keyId, { signal })
  await assert.rejects(openRepository(storage, 'one', { signal }), (e) => isFault(e, 'wrong-key'))
  await other.changeKey('three', { signal })
  await assert.rejects(openRepository(storage, 'two', { signal }), (e) => isFault(e, 'wrong-key'))
  const third = await openRepository(storage, 'three', { signal })
  assert.equal(third.id, repository.id)
})

test('a making that was broken off is gone on with, and nothing else without a config is', async () => {
  const storage = new MemStorage()
  const init = (password: string) => initRepository(storage, password, { signal, passwordCost })
  const dying = withFaults(storage, { crashAt: 1 })
  await assert.rejects(initRepository(dying, 'secret', { signal, passwordCost }), Crash)
  await assert.rejects(init('another'), (e) => isFault(e, 'exists'))
  await init('secret')
  const opened = await openRepository(storage, 'secret', { signal })
  assert.equal((await opened.listKeys({ signal })).length, 1)
  await storage.put('snapshots/00', Buffer.from('in use'))
  await storage.delete('config')
  await assert.rejects(init('secret'), (e) => isFault(e, 'exists'))
})

test('snapshots come back with every field, and go away', async () => {
  const storage = new MemStorage()
  const repository = await initRepository(storage, 'secret', { signal, passwordCost })
  const given = {
    time: '2026-01-02T03:04:05.123456789+01:00',
    tree: '00'.repeat(32),
    paths: ['/data'],
    tags: ['lsn=0/1'],
    summary: { total_bytes_processed: 3 },
  }
  const saved = await repository.saveSnapshot(given, { signal })
  assert.deepEqual(await repository.snapshots({ signal }), [{ ...given, id: saved.id }])
  await repository.removeSnapshot(saved.id, { signal })
  assert.deepEqual(await repository.snapshots({ signal }), [])
})

test('known keys open a repository as long as their key file is there', async () => {
  const storage = new MemStorage()
  const first = await initRepository(storage, 'secret', { signal, passwordCost })
  const known = { keyId: first.keyId, masterKeys: first.masterKeys }
  const [blobs = []] = await save(first, [Buffer.from('x')])
  const again = await openRepository(storage, 'not asked for', { signal, known })
  assert.equal(again.keyId, first.keyId)
  await again.loadIndex({ signal })
  assert.equal((await load(again, blobs)).toString(), 'x')

  await first.addKey('other', { signal })
  await storage.delete(`keys/${first.keyId}`)
  await assert.rejects(openRepository(storage, 'secret', { signal, known }), (error) =>
    isFault(error, 'wrong-key'),
  )
})
