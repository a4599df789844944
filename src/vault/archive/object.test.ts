import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { MemStorage } from '#storage/mem'
import {
  collect,
  FakeLog,
  source,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { listLog } from './inventory.ts'
import { openObject } from './object.ts'
import { openWriter } from './writer.ts'

const { signal } = new AbortController()

/** Counts the objects that are being read. */
class Watched extends MemStorage {
  reading = 0

  override async *stream(
    ...args: Parameters<MemStorage['stream']>
  ): AsyncGenerator<Buffer, void, void> {
    this.reading += 1
    try {
      yield* super.stream(...args)
    } finally {
      this.reading -= 1
    }
  }
}

test('an object that is refused is read no further, and nothing of it stays open', async () => {
  using scratch = new Scratch('object')
  const [storage, keys] = [new Watched(), new VaultKeys()]
  {
    await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
    for (const block of new FakeLog().blocks(0, 500)) await writer.append(block, { signal })
    await writer.flush({ signal })
  }
  const { objects } = await listLog(storage, source, signal)
  const key = objects[0]?.key ?? ''
  const { pieces } = await openObject(storage, key, keys.reading, signal)
  await collect(pieces)
  assert.equal(storage.reading, 0)
  const unreadable = { ...keys.reading, identities: [] }
  await assert.rejects(openObject(storage, key, unreadable, signal), (e) => isFault(e, 'wrong-key'))
  assert.equal(storage.reading, 0)
})
