import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { type Fault, fromSystem } from '#base/faults'
import { MemStorage } from '#storage/mem'
import { blockBytes } from './limits.ts'
import { initRepository, openRepository } from './open.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { packKey } from './pack.ts'
import type { BlobPlacing, Repository } from './repository.ts'

const { signal } = new AbortController()

/** So many different blocks that pack well: enough that other threads are asked to open them. */
function someBlocks(count: number): Map<string, Buffer> {
  const blocks = Array.from({ length: count }, (_, i) => Buffer.alloc(blockBytes, `${i} `))
  return new Map(
    blocks.map((block) => [createHash('sha256').update(block).digest('hex'), block] as const),
  )
}

async function damage(storage: MemStorage, repository: Repository, id: string): Promise<void> {
  const place = repository.find('data', id)
  assert.ok(place)
  const pack = await storage.get(packKey(place.pack), { signal })
  const at = place.offset + 40
  pack[at] = (pack[at] ?? 0) ^ 1
  await storage.delete(packKey(place.pack), { signal })
  await storage.put(packKey(place.pack), pack, { signal })
}

test('blobs opened by other threads are the right ones, and hold while they are visited', async () => {
  const storage = new MemStorage()
  const passwordCost = { n: 2, r: 1, p: 1 }
  const repository = await initRepository(storage, 'secret', { signal, passwordCost })
  const blocks = someBlocks(64)
  await using saver = await repository.openSaver({ signal, workers: 1 })
  const writer = saver.writeBlocks()
  for (const block of blocks.values()) await writer.write(block)
  const small = await saver.saveBlob('data', Buffer.from('small'))
  await writer.end()
  await saver.finish()

  await using again = await openRepository(storage, 'secret', { signal })
  await again.loadIndex({ signal })
  const ids = [...blocks.keys(), small]
  const seen = new Set<string>()
  const visit = async (id: string, plain: Buffer) => {
    for (let turn = seen.size % 3; turn < 3; turn += 1) await new Promise(setImmediate)
    assert.equal(createHash('sha256').update(plain).digest('hex'), id)
    seen.add(id)
  }
  await again.loadBlobs(ids, { signal, isTransient: true }, visit)
  assert.equal(seen.size, 65)

  const [spoilt = ''] = blocks.keys()
  await damage(storage, again, spoilt)
  seen.clear()
  const damaged = new Map<string, Fault>()
  const onDamaged = (id: string, fault: Fault) => void damaged.set(id, fault)
  await again.loadBlobs(ids, { signal, isTransient: true, onDamaged }, visit)
  assert.equal(seen.size, 64)
  assert.deepEqual([...damaged.keys()], [spoilt])
  assert.equal(damaged.get(spoilt)?.code, 'corrupt')

  const stop = new AbortController()
  // The damage is still there, and may be met before the abort.
  const how = { signal: stop.signal, isTransient: true, onDamaged }
  const stopped = again.loadBlobs(ids, how, async () => stop.abort(new Error('enough')))
  await assert.rejects(stopped, /enough/)
})

test('other threads write blobs to their places themselves, and tell what could not be read or written', async () => {
  const storage = new MemStorage()
  const passwordCost = { n: 2, r: 1, p: 1 }
  const repository = await initRepository(storage, 'secret', { signal, passwordCost })
  const blocks = someBlocks(64)
  const [zeroed = '', spoilt = ''] = blocks.keys()
  blocks
    .get(zeroed)
    ?.fill(0, 0, 8192)
    .fill(0, blockBytes - 5000)
  const ids: string[] = []
  await using saver = await repository.openSaver({ signal, workers: 1 })
  const writer = saver.writeBlocks()
  for (const block of blocks.values()) await writer.write(block)
  ids.push(...(await writer.end()).blobs)
  await saver.finish()
  await using again = await openRepository(storage, 'secret', { signal })
  await again.loadIndex({ signal })

  using folder = new Scratch('places')
  const descriptor = openSync(folder.join('file'), 'w+')
  ftruncateSync(descriptor, 65 * blockBytes)
  let held = 0
  const placing = (id: string, to: number): BlobPlacing => {
    held += 1
    const offset = ids.indexOf(id) * blockBytes
    // The last one goes to a second place too.
    const places = [offset, ...(id === ids[63] ? [64 * blockBytes] : [])]
    return {
      places: places.map((at) => ({ descriptor: to, offset: at })),
      written: (sizeBytes) => assert.equal(sizeBytes, blockBytes),
      fault: (_, error) => fromSystem(error, 'write the file'),
      release: () => {
        held -= 1
      },
    }
  }
  const place = (id: string) => placing(id, descriptor)
  const visited: string[] = []
  const visit = async (id: string) => void visited.push(id)
  const options = { signal, isTransient: true }
  await again.loadBlobs(ids, { ...options, place }, visit)
  assert.deepEqual([visited, held], [[], 0])
  const file = readFileSync(folder.join('file'))
  for (const [index, id] of [...ids, ids[63] ?? ''].entries()) {
    const bytes = file.subarray(index * blockBytes, (index + 1) * blockBytes)
    assert.equal(createHash('sha256').update(bytes).digest('hex'), id)
  }

  await damage(storage, again, spoilt)
  const damaged: string[] = []
  const onDamaged = (id: string) => void damaged.push(id)
  await again.loadBlobs(ids, { ...options, place, onDamaged }, visit)
  assert.deepEqual([damaged, visited, held], [[spoilt], [], 0])

  closeSync(descriptor)
  const full = openSync('/dev/full', 'w')
  const refused = again.loadBlobs(
    ids,
    { ...options, onDamaged, place: (id) => placing(id, full) },
    visit,
  )
  await assert.rejects(refused, { code: 'full', message: 'write the file: ENOSPC' })
  assert.equal(held, 0)
  closeSync(full)
})
