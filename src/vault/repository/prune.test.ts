import assert from 'node:assert/strict'
import { test } from 'node:test'
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
import { Fault } from '#base/faults'
import type { Storage } from '#storage'
import { checkRepository } from './check.ts'
import { openRepository } from './open.ts'
import { pruneRepository, type PruneOptions, type PruneReport } from './prune.ts'
import { parseUnusedLimit } from './prune-plan.ts'

const signal = new AbortController().signal
const hourMs = 3_600_000
const nothing = parseUnusedLimit('0')

/** A store and a machine whose clocks are moved by hand. */
class World {
  nowMs = Date.UTC(2026, 0, 1)
  readonly storage = new MemStorage({ now: () => this.nowMs })

  async prune(
    options: Partial<PruneOptions> = {},
    on: Storage = this.storage,
  ): Promise<PruneReport> {
    await using repository = await openRepository(on, password, { signal })
    const time = { ...hastyTime, now: () => this.nowMs }
    return await pruneRepository(repository, { signal, time, maxUnused: nothing, ...options })
  }

  async countPacks(on: Storage = this.storage): Promise<number> {
    return [...(await readObjects(on)).keys()].filter((key) => key.startsWith('data/')).length
  }
}

let template: Map<string, Buffer> | undefined

/** Three snapshots of which the first two share data; the first is removed. */
async function makeWorld(): Promise<World> {
  template ??= await readObjects((await buildWorld()).storage)
  const world = new World()
  for (const [key, bytes] of template) await world.storage.put(key, bytes)
  return world
}

async function buildWorld(): Promise<World> {
  const world = new World()
  const repository = await makeRepository(world.storage)
  const shared = noise('shared', 300_000)
  const leaf = { leaf: Buffer.from('leaf') }
  const gone = await saveFolder(
    repository,
    { shared, gone: noise('gone', 100_000), leaf },
    { time: '2026-01-01T00:00:00Z' },
  )
  await saveFolder(
    repository,
    { shared, two: noise('two', 50_000), leaf },
    { time: '2026-01-02T00:00:00Z' },
  )
  await saveFolder(
    repository,
    { three: noise('three', 50_000), leaf },
    { time: '2026-01-03T00:00:00Z' },
  )
  await repository.removeSnapshot(gone.id, { signal })
  await repository[Symbol.asyncDispose]()
  return world
}

async function assertSound(storage: Storage, what: string): Promise<void> {
  await using repository = await openRepository(storage, password, { signal })
  const report = await checkRepository(repository, {
    signal,
    time: hastyTime,
    readData: { kind: 'all' },
  })
  assert.deepEqual(
    report.findings.filter(({ severity }) => severity === 'error'),
    [],
    what,
  )
  assert.equal(report.snapshots, 2, what)
}

test('pruneRepository() marks first, and deletes once the grace period is over', async () => {
  const world = await makeWorld()
  const before = await world.countPacks()
  const first = await world.prune()
  assert.ok(first.repacked >= 1 && first.marked >= 2, JSON.stringify(first))
  assert.equal(first.deleted, 0)
  assert.ok((await world.countPacks()) > before)
  await assertSound(world.storage, 'marked')

  world.nowMs += 23 * hourMs
  const early = await world.prune()
  assert.equal(early.deleted, 0)
  assert.equal(early.marked, 0)
  assert.equal(early.waiting, first.marked)

  world.nowMs += 2 * hourMs
  const late = await world.prune()
  assert.equal(late.deleted, first.marked)
  assert.equal(late.waiting, 0)
  await assertSound(world.storage, 'deleted')
  const again = await world.prune()
  assert.deepEqual(
    { ...again, usedBytes: 0, packs: 0 },
    {
      snapshots: 2,
      packs: 0,
      usedBytes: 0,
      unusedBytes: 0,
      repacked: 0,
      repackedBytes: 0,
      marked: 0,
      markedBytes: 0,
      deleted: 0,
      deletedBytes: 0,
      waiting: 0,
      retained: 0,
      rescued: 0,
      leftBytes: 0,
    },
  )
})

test('pruneRepository() goes by neither clock alone', async () => {
  for (const clock of ['store', 'machine'] as const) {
    const world = await makeWorld()
    await world.prune()
    let storeMs = world.nowMs
    const storage = new MemStorage({ now: () => storeMs })
    for (const [key, bytes] of await readObjects(world.storage)) await storage.put(key, bytes)
    if (clock === 'store') storeMs += 90 * hourMs
    else world.nowMs += 90 * hourMs
    assert.equal((await world.prune({}, storage)).deleted, 0, clock)
  }
})

test('pruneRepository() with no grace frees the space in one run', async () => {
  const world = await makeWorld()
  const report = await world.prune({ graceMs: 0 })
  assert.equal(report.deleted, report.marked)
  assert.equal(report.waiting, 0)
  await assertSound(world.storage, 'no grace')
  const objects = [...(await readObjects(world.storage)).keys()]
  assert.ok(objects.every((key) => !key.startsWith('marks/')))
  assert.equal((await world.prune()).packs, await world.countPacks())
})

test('pruneRepository() changes nothing in a dry run, and tells what it would do', async () => {
  const world = await makeWorld()
  const before = [...(await readObjects(world.storage)).keys()]
  const dry = await world.prune({ dryRun: true })
  assert.deepEqual([...(await readObjects(world.storage)).keys()], before)
  assert.deepEqual(await world.prune(), dry)
})

test('pruneRepository() refuses when a needed blob or pack is not as it should be', async () => {
  const world = await makeWorld()
  await world.prune({ graceMs: 0 })
  let refused = 0
  for (const [key, bytes] of await readObjects(world.storage)) {
    if (!key.startsWith('data/') && !key.startsWith('index/')) continue
    for (const damaged of [undefined, bytes.subarray(1)]) {
      const copy = world.storage.copy()
      if (damaged) await copy.put(key, damaged)
      else await copy.delete(key)
      const before = await world.countPacks(copy)
      await assert.rejects(world.prune({ graceMs: 0 }, copy), (error: Error & { code?: string }) =>
        ['refused', 'corrupt', 'missing'].includes(error.code ?? ''),
      )
      assert.equal(await world.countPacks(copy), before)
      refused += 1
    }
  }
  assert.ok(refused >= 8)
})

test('pruneRepository() takes back a marked pack that a snapshot needs again', async () => {
  const world = await makeWorld()
  const snapshot = await (async () => {
    await using repository = await openRepository(world.storage, password, { signal })
    // A backup that looked things up before the prune, and wrote its snapshot after it.
    const folder = { back: noise('gone', 100_000) }
    return await saveFolder(repository, folder, { time: '2026-01-04T00:00:00Z' })
  })()
  const record = await world.storage.get(`snapshots/${snapshot.id}`)
  await world.storage.delete(`snapshots/${snapshot.id}`)
  await world.prune()
  await world.storage.put(`snapshots/${snapshot.id}`, record)
  await using before = await openRepository(world.storage, password, { signal })
  const { ok, findings } = await checkRepository(before, { signal, time: hastyTime })
  assert.equal(ok, false)
  assert.ok(findings.some(({ about, said }) => about === 'marks' && /takes them back/.test(said)))
  world.nowMs += 25 * hourMs
  const report = await world.prune()
  assert.ok(report.rescued > 0)
  await using repository = await openRepository(world.storage, password, { signal })
  const checked = await checkRepository(repository, {
    signal,
    time: hastyTime,
    readData: { kind: 'all' },
  })
  assert.equal(checked.ok, true)
  assert.equal(checked.snapshots, 3)
})

test('pruneRepository() deletes what an interrupted backup left, after the grace period', async () => {
  const world = await makeWorld()
  await world.prune({ graceMs: 0 })
  await world.storage.put(`data/ab/${'ab'.repeat(32)}`, noise('rest', 1000))
  assert.equal((await world.prune()).marked, 1)
  world.nowMs += 25 * hourMs
  assert.equal((await world.prune()).deleted, 1)
  await assertSound(world.storage, 'leftovers')
})

test('a pack that the store does not let go stays marked, until it does', async () => {
  const world = await makeWorld()
  const first = await world.prune()
  world.nowMs += 25 * hourMs
  const holding = withFaults(world.storage)
  const remove = holding.delete.bind(holding)
  holding.delete = async (key, options) => {
    if (key.startsWith('data/')) throw new Fault('denied', `delete ${key}: retained`)
    await remove(key, options)
  }
  const held = await world.prune({}, holding)
  assert.deepEqual([held.deleted, held.retained, held.waiting], [0, first.marked, first.marked])
  const free = await world.prune()
  assert.deepEqual([free.deleted, free.waiting], [first.marked, 0])
  await assertSound(world.storage, 'let go')
})

test('a failed listing ends the prune before anything is deleted', async () => {
  const world = await makeWorld()
  await world.prune()
  world.nowMs += 25 * hourMs
  for (const folder of ['snapshots/', 'index/', 'data/', 'marks/']) {
    const copy = withFaults(world.storage.copy())
    const list = copy.list.bind(copy)
    copy.list = async function* (prefix, options) {
      if (prefix === folder) throw new Error('no listing')
      yield* list(prefix, options)
    }
    await assert.rejects(world.prune({}, copy), /no listing/, folder)
    const written = copy.operations.filter(({ key }) => !key.startsWith('locks/'))
    assert.deepEqual(written, [], folder)
  }
})

test('pruneRepository() may die at any operation: all stays sound, and the next run ends the work', async () => {
  const world = await makeWorld()
  // What was marked long ago is swept, and new marks are made, in one run.
  await world.prune()
  world.nowMs += 25 * hourMs
  await using repository = await openRepository(world.storage, password, { signal })
  const extra = await saveFolder(
    repository,
    { extra: noise('extra', 10_000) },
    { time: '2026-01-05T00:00:00Z' },
  )
  await repository.removeSnapshot(extra.id, { signal })
  const start = world.storage.copy()

  const counted = withFaults(start.copy())
  const whole = await world.prune({}, counted)
  assert.ok(whole.deleted > 0 && whole.marked > 0)
  let tried = 0
  for (let crashAt = 0; crashAt < counted.operations.length; crashAt++) {
    for (const crashWhen of ['before', 'after'] as const) {
      const left = start.copy()
      const what = `${crashWhen} ${crashAt}`
      await assert.rejects(world.prune({}, withFaults(left, { crashAt, crashWhen })), isCrash, what)
      await dropLocks(left)
      await assertSound(left, what)
      await world.prune({}, left)
      await dropLocks(left)
      await assertSound(left, `${what}, then pruned`)
      tried += 1
    }
  }
  assert.equal(tried, 2 * counted.operations.length)
  assert.ok(tried > 10, `${tried}`)
})

function isCrash(error: unknown): boolean {
  if (error instanceof SuppressedError) return isCrash(error.error) || isCrash(error.suppressed)
  return error instanceof Crash
}

/** The dead process was this one: its lock would count as held. */
async function dropLocks(storage: Storage): Promise<void> {
  for await (const { key } of storage.list('locks/')) await storage.delete(key)
}
