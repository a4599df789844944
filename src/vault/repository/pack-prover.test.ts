import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  makeRepository,
  noise,
  readObjects,
  saveFolder,
} from '../../../test/support/repositories.ts'
import { MemStorage } from '../../storage/mem/mem.ts'
import { provePack } from './pack-proof.ts'

const signal = new AbortController().signal

test('PackProver finds on other threads what provePack() finds on this one', async () => {
  const storage = new MemStorage()
  await using repository = await makeRepository(storage)
  const folder = { noise: noise('a', 600_000), text: Buffer.from('text '.repeat(1000)) }
  await saveFolder(repository, folder, { time: '2026-01-01T00:00:00Z' })
  const [file] = await repository.listFiles('index', { signal })
  assert.ok(file)
  const packs = await repository.loadIndexFile(file, { signal })
  const objects = await readObjects(storage)
  await using prover = repository.openPackProver(2)
  const trials = packs.flatMap((pack) => {
    const bytes = objects.get(`data/${pack.id.slice(0, 2)}/${pack.id}`)
    assert.ok(bytes)
    const flipped = [0, 20, bytes.length >> 1, bytes.length - 40, bytes.length - 1].map((at) => {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 4
      return changed
    })
    const cut = [bytes.subarray(0, 100), bytes.subarray(0, bytes.length - 1), Buffer.alloc(0)]
    return [bytes, ...flipped, ...cut].map((each) => ({ pack, bytes: each }))
  })
  const theirs = await Promise.all(
    trials.map(async ({ pack, bytes }) => prover.prove(pack, Buffer.from(bytes))),
  )
  const ours = trials.map(({ pack, bytes }) => provePack(repository, pack, bytes))
  assert.deepEqual(theirs, ours)
  assert.deepEqual(
    ours.map((damage) => damage === undefined),
    trials.map(
      ({ pack, bytes }) => objects.get(`data/${pack.id.slice(0, 2)}/${pack.id}`) === bytes,
    ),
  )
})
