import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import {
  hastyTime,
  makeRepository,
  noise,
  password,
  readObjects,
  saveFolder,
} from '../../../test/support/repositories.ts'
import { MemStorage } from '../../storage/mem/mem.ts'
import { Crash, withFaults } from '../../storage/wrap/fault.ts'
import type { Storage } from '#storage'
import { checkRepository } from './check.ts'
import { type CopyOptions, copySnapshots } from './copy.ts'
import { openRepository } from './open.ts'
import type { Repository, Snapshot } from './repository.ts'
import { measureRepository } from './stats.ts'

const signal = new AbortController().signal
const options: CopyOptions = { signal, time: hastyTime }
let source: Repository
let snapshots: readonly Snapshot[] = []
const empty = new MemStorage()

before(async () => {
  source = await makeRepository(new MemStorage())
  const shared = { shared: noise('shared', 200_000), folder: { leaf: Buffer.from('leaf') } }
  await saveFolder(
    source,
    { ...shared, a: noise('a', 5000) },
    { time: '2026-01-01T00:00:00Z', tags: ['t'] },
  )
  await saveFolder(source, { ...shared, b: noise('b', 5000) }, { time: '2026-01-02T00:00:00Z' })
  snapshots = await source.snapshots({ signal })
  await (await makeRepository(empty))[Symbol.asyncDispose]()
})

async function open(storage: Storage): Promise<Repository> {
  return openRepository(storage, password, { signal })
}

async function assertWhole(storage: Storage, count: number): Promise<void> {
  await using repository = await open(storage)
  const report = await checkRepository(repository, { ...options, readData: { kind: 'all' } })
  assert.deepEqual(
    report.findings.filter(({ severity }) => severity === 'error'),
    [],
  )
  assert.equal(report.snapshots, count)
}

test('copySnapshots() copies all that is needed, once, and remembers the origin', async () => {
  const storage = empty.copy()
  await using target = await open(storage)
  const dry = await copySnapshots(source, target, { ...options, dryRun: true })
  assert.equal((await target.snapshots({ signal })).length, 0)
  const done = await copySnapshots(source, target, options)
  assert.equal(done.copied.length, 2)
  assert.equal(done.blobs, dry.blobs)
  assert.equal(done.addedBytes, dry.addedBytes)
  const copies = await target.snapshots({ signal })
  assert.deepEqual(
    copies.map(({ original }) => original),
    snapshots.map(({ id }) => id),
  )
  assert.deepEqual(
    copies.map(({ tree, time, tags }) => [tree, time, tags]),
    snapshots.map(({ tree, time, tags }) => [tree, time, tags]),
  )
  await assertWhole(storage, 2)
  const before = [...(await readObjects(storage)).keys()]
  const again = await copySnapshots(source, target, options)
  assert.deepEqual([again.copied.length, again.present, again.blobs], [0, 2, 0])
  assert.deepEqual([...(await readObjects(storage)).keys()], before)
})

test('copySnapshots() knows copies of copies, in every direction', async () => {
  await using second = await open(empty.copy())
  await using third = await makeRepository(new MemStorage())
  await copySnapshots(source, second, options)
  assert.equal((await copySnapshots(second, third, options)).copied.length, 2)
  assert.equal((await copySnapshots(source, third, options)).copied.length, 0)
  assert.equal((await copySnapshots(third, source, options)).copied.length, 0)
})

test('copySnapshots() copies what is named or passes the filter, and only its blobs', async () => {
  const storage = empty.copy()
  await using target = await open(storage)
  const [first, second] = snapshots
  assert.ok(first && second)
  const one = await copySnapshots(source, target, { ...options, ids: [first.id.slice(0, 16)] })
  assert.deepEqual(
    one.copied.map(({ from }) => from),
    [first.id],
  )
  await assertWhole(storage, 1)
  const rest = await copySnapshots(source, target, options)
  assert.equal(rest.present, 1)
  // Two trees and a file are new; all else came with the first.
  assert.equal(rest.blobs, 3)
  await using other = await makeRepository(new MemStorage())
  const tagged = await copySnapshots(source, other, { ...options, filter: { tags: [['t']] } })
  assert.equal(tagged.copied.length, 1)
})

test('copySnapshots() refuses a repository as its own target, and a damaged source', async () => {
  await using same = await open(source.storage)
  await assert.rejects(copySnapshots(source, same, options), { code: 'usage' })
  const damaged = new MemStorage()
  for (const [key, bytes] of await readObjects(source.storage)) {
    if (key.startsWith('data/')) bytes[40] = (bytes[40] ?? 0) ^ 1
    await damaged.put(key, bytes)
  }
  await using bad = await open(damaged)
  await using target = await open(empty.copy())
  await assert.rejects(copySnapshots(bad, target, options), { code: 'corrupt' })
  assert.equal((await target.snapshots({ signal })).length, 0)
})

test('copySnapshots() may die at any operation: what is there is whole, and the next run ends the work', async () => {
  const counted = withFaults(empty.copy())
  await using target = await open(counted)
  await copySnapshots(source, target, options)
  for (let crashAt = 0; crashAt < counted.operations.length; crashAt++) {
    const left = empty.copy()
    const dying = await open(
      withFaults(left, { crashAt, crashWhen: crashAt % 2 ? 'after' : 'before' }),
    )
    await assert.rejects(copySnapshots(source, dying, options), isCrash)
    for await (const { key } of left.list('locks/')) await left.delete(key)
    await using again = await open(left)
    await copySnapshots(source, again, options)
    await assertWhole(left, 2)
  }
  assert.ok(counted.operations.length >= 6)
})

function isCrash(error: unknown): boolean {
  if (error instanceof SuppressedError) return isCrash(error.error) || isCrash(error.suppressed)
  return error instanceof Crash
}

test('measureRepository() counts what is restored, needed and stored', async () => {
  const stats = await measureRepository(source, options)
  assert.equal(stats.snapshots, 2)
  assert.equal(stats.restoreNodes, 10)
  assert.equal(stats.restoreBytes, 2 * (200_000 + 5000 + 4))
  assert.equal(stats.dataBlobs, 4)
  assert.equal(stats.treeBlobs, 5)
  assert.ok(
    stats.plainBytes > 210_000 && stats.storedBytes > 0 && stats.packsBytes > stats.storedBytes,
  )
  assert.ok(stats.deduplicationRatio > 1.9 && stats.deduplicationRatio < 2)
  assert.equal(
    (await measureRepository(source, { ...options, filter: { tags: [['t']] } })).snapshots,
    1,
  )
})
