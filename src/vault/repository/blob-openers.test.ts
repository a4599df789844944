import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import type { Fault } from '#base/faults'
import { MemStorage } from '#storage/mem'
import { blockBytes } from './limits.ts'
import { initRepository, openRepository } from './open.ts'
import { packKey } from './pack.ts'

const { signal } = new AbortController()

/** So many different blocks that pack well: enough that other threads are asked to open them. */
function someBlocks(count: number): Map<string, Buffer> {
  const blocks = Array.from({ length: count }, (_, i) => Buffer.alloc(blockBytes, `${i} `))
  return new Map(
    blocks.map((block) => [createHash('sha256').update(block).digest('hex'), block] as const),
  )
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
  const place = again.find('data', spoilt)
  assert.ok(place)
  const pack = await storage.get(packKey(place.pack), { signal })
  const at = place.offset + 40
  pack[at] = (pack[at] ?? 0) ^ 1
  await storage.delete(packKey(place.pack), { signal })
  await storage.put(packKey(place.pack), pack, { signal })
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
