import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  hastyTime,
  makeRepository,
  noise,
  password,
  saveFolder,
  writeObjects,
} from '../../../test/support/repositories.ts'
import { Restic } from '../../../test/support/servers/restic.ts'
import type { Storage } from '#storage'
import { openFsStorage } from '../../storage/fs/fs.ts'
import { MemStorage } from '../../storage/mem/mem.ts'
import { Crash, withFaults } from '../../storage/wrap/fault.ts'
import { openRepository } from './open.ts'
import { pruneRepository } from './prune.ts'
import { parseUnusedLimit } from './prune-plan.ts'

const signal = new AbortController().signal
const dayMs = 24 * 3_600_000
const leaf = { leaf: Buffer.from('leaf') }

async function inFolder(work: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'redoubt-prune-'))
  try {
    await work(dir)
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

async function prune(storage: Storage, graceMs: number, nowMs: number) {
  await using repository = await openRepository(storage, password, { signal })
  const time = { ...hastyTime, now: () => nowMs }
  return await pruneRepository(repository, {
    signal,
    time,
    graceMs,
    maxUnused: parseUnusedLimit('0'),
  })
}

async function checkByRestic(
  storage: Storage,
  versions: readonly ('0.19' | '0.14')[],
): Promise<void> {
  await inFolder(async (dir) => {
    await writeObjects(storage, dir)
    for (const version of versions) {
      await new Restic({ repository: dir, password, version }).run(['check', '--read-data'])
    }
  })
}

/** A repository with work for every step: two snapshots stay, one goes. Its clock is moved by hand. */
async function makeStart(clock: { nowMs: number }): Promise<MemStorage> {
  const storage = new MemStorage({ now: () => clock.nowMs })
  await using repository = await makeRepository(storage)
  const shared = noise('shared', 200_000)
  const gone = await saveFolder(
    repository,
    { shared, gone: noise('gone', 9000), leaf },
    { time: '2026-01-01T00:00:00Z' },
  )
  await saveFolder(repository, { shared, leaf }, { time: '2026-01-02T00:00:00Z' })
  await saveFolder(repository, { three: noise('three', 5000) }, { time: '2026-01-03T00:00:00Z' })
  await repository.removeSnapshot(gone.id, { signal })
  return storage
}

for (const [said, graceMs] of [
  ['marking and repacking', dayMs],
  ['marking and deleting at once', 0],
  ['deleting what was marked', dayMs],
] as const) {
  test(`killed at any operation of ${said}, stock restic still finds all data`, async () => {
    const clock = { nowMs: Date.UTC(2026, 0, 1) }
    const start = await makeStart(clock)
    if (said === 'deleting what was marked') {
      await prune(start, graceMs, clock.nowMs)
      clock.nowMs += 2 * dayMs
    }
    const counted = withFaults(start.copy())
    await prune(counted, graceMs, clock.nowMs)
    const count = counted.operations.length
    let tried = 0
    for (let crashAt = 0; crashAt < count; crashAt++) {
      const crashWhen = crashAt % 2 === 0 ? 'before' : 'after'
      const left = start.copy()
      const dying = withFaults(left, { crashAt, crashWhen })
      await assert.rejects(prune(dying, graceMs, clock.nowMs), isCrash)
      // The dead process was this one: its lock would count as held.
      for await (const { key } of left.list('locks/')) await left.delete(key)
      await checkByRestic(left, ['0.19'])
      await prune(left, 0, clock.nowMs)
      await checkByRestic(left, ['0.19'])
      tried += 1
    }
    assert.ok(tried === count && tried >= 4, `${tried} of ${count}`)
    await checkByRestic(counted, ['0.19', '0.14'])
  })
}

function isCrash(error: unknown): boolean {
  if (error instanceof SuppressedError) return isCrash(error.error) || isCrash(error.suppressed)
  return error instanceof Crash
}

test('a repository of stock restic is pruned, and stock restic restores the rest and goes on', async () => {
  await inFolder(async (dir) => {
    const storage = await openFsStorage(join(dir, 'repo'), { create: true })
    await (await makeRepository(storage))[Symbol.asyncDispose]()
    const restic = new Restic({ repository: join(dir, 'repo'), password })
    const old = new Restic({ repository: join(dir, 'repo'), password, version: '0.14' })
    for (const [index, by] of [old, restic, old, restic].entries()) {
      for (const name of ['one', 'two']) {
        await writeFile(join(dir, name), noise(`${name} ${index > 1 ? index : 0}`, 600_000))
      }
      await by.run(['backup', 'one', 'two', '--host', 'h'], { cwd: dir })
    }
    await restic.run(['forget', '--keep-last', '1', '--group-by', ''])
    const report = await prune(storage, 0, Date.now())
    assert.ok(report.deleted >= 2, JSON.stringify(report))
    for (const by of [old, restic]) await by.run(['check', '--read-data'])
    await restic.run(['restore', 'latest', '--target', join(dir, 'out')])
    for (const name of ['one', 'two']) {
      const restored = (await readdir(join(dir, 'out'), { recursive: true })).find((path) =>
        path.endsWith(name),
      )
      assert.ok(restored)
      assert.deepEqual(await readFile(join(dir, 'out', restored)), noise(`${name} 3`, 600_000))
    }
    await restic.run(['prune'])
    await old.run(['backup', 'one', '--host', 'h'], { cwd: dir })
    await restic.run(['check', '--read-data'])
    await storage[Symbol.asyncDispose]()
  })
})
