import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ManualTime } from '../../../../test/support/manual-time.ts'
import { indexFileAgeMaxMs, indexFileBlobsMax } from '../limits.ts'
import type { IndexedPack } from '../repository.ts'
import { IndexWriter } from './index-writer.ts'

function pack(number: number, blobs: number): IndexedPack {
  const id = (value: number) => value.toString(16).padStart(64, '0')
  const blob = { type: 'data', length: 100, plainLength: 0 } as const
  const list = Array.from({ length: blobs }, (_, i) => ({ ...blob, id: id(i), offset: i * 100 }))
  return { id: id(number), blobs: list }
}

test('an index file is written at its count of blobs, and by the first pack after its time', async () => {
  const time = new ManualTime()
  const written: number[] = []
  const writer = new IndexWriter(async (text) => {
    written.push((JSON.parse(text) as { packs: unknown[] }).packs.length)
  }, time)
  await writer.add(pack(1, 10))
  await time.advance(indexFileAgeMaxMs - 1)
  await writer.add(pack(2, 10))
  assert.deepEqual(written, [])
  await time.advance(1)
  await writer.add(pack(3, 10))
  assert.deepEqual(written, [3])
  // The time begins with the first pack of the next file.
  await time.advance(indexFileAgeMaxMs)
  await writer.add(pack(4, 10))
  await writer.add(pack(5, indexFileBlobsMax - 10))
  assert.deepEqual(written, [3, 2])
  await writer.flush()
  assert.deepEqual(written, [3, 2])
})
