import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hastyTime, makeRepository } from '../../../test/support/repositories.ts'
import { MemStorage } from '../../storage/mem/mem.ts'
import { findSnapshot, forgetSnapshots } from './forget.ts'
import type { Repository, Snapshot } from './repository.ts'

const signal = new AbortController().signal
const options = { signal, time: hastyTime }

async function makeSnapshots(): Promise<{ repository: Repository; snapshots: Snapshot[] }> {
  const repository = await makeRepository(new MemStorage())
  for (let day = 1; day <= 5; day++) {
    const hostname = day === 5 ? 'other' : 'h'
    const tags = day === 2 ? { tags: ['keep'] } : {}
    await repository.saveSnapshot(
      {
        time: `2026-01-0${day}T00:00:00Z`,
        tree: 'ab'.repeat(32),
        paths: ['/a'],
        hostname,
        ...tags,
      },
      { signal },
    )
  }
  return { repository, snapshots: await repository.snapshots({ signal }) }
}

async function timesLeft(repository: Repository): Promise<readonly string[]> {
  return (await repository.snapshots({ signal })).map(({ time }) => time.slice(0, 10))
}

test('forgetSnapshots() removes what the rules do not keep, in each group alone', async () => {
  const { repository } = await makeSnapshots()
  const rules = { last: 1, tags: [['keep']] }
  const plan = await forgetSnapshots(repository, { ...options, rules, dryRun: true })
  assert.equal(plan.removed.length, 2)
  assert.equal((await timesLeft(repository)).length, 5)
  const done = await forgetSnapshots(repository, { ...options, rules })
  assert.deepEqual(done.removed, plan.removed)
  assert.deepEqual(await timesLeft(repository), ['2026-01-02', '2026-01-04', '2026-01-05'])
})

test('forgetSnapshots() looks only at what the filter lets pass', async () => {
  const { repository } = await makeSnapshots()
  const filter = { hosts: ['other'], paths: ['/a'] }
  await forgetSnapshots(repository, { ...options, rules: { last: 1 }, filter })
  assert.equal((await timesLeft(repository)).length, 5)
})

test('forgetSnapshots() refuses to empty a group unless told', async () => {
  const { repository } = await makeSnapshots()
  const rules = { tags: [['nowhere']] }
  await assert.rejects(forgetSnapshots(repository, { ...options, rules }), { code: 'refused' })
  await assert.rejects(forgetSnapshots(repository, { ...options, rules: { last: 0 } }), {
    code: 'usage',
  })
  assert.equal((await timesLeft(repository)).length, 5)
  await forgetSnapshots(repository, { ...options, rules, allowEmptyGroups: true })
  assert.equal((await timesLeft(repository)).length, 0)
})

test('forgetSnapshots() removes snapshots by id, all or none', async () => {
  const { repository, snapshots } = await makeSnapshots()
  const ids = snapshots.slice(0, 2).map(({ id }) => id)
  await assert.rejects(forgetSnapshots(repository, { ...options, ids: [...ids, '0000'] }), {
    code: 'missing',
  })
  assert.equal((await timesLeft(repository)).length, 5)
  await forgetSnapshots(repository, { ...options, ids: ids.map((id) => id.slice(0, 12)) })
  assert.equal((await timesLeft(repository)).length, 3)
})

test('findSnapshot() takes an id, its beginning, or latest', async () => {
  const { snapshots } = await makeSnapshots()
  const last = snapshots.at(-1)
  assert.ok(last)
  assert.equal(findSnapshot(snapshots, 'latest'), last)
  assert.equal(findSnapshot(snapshots, last.id.slice(0, 20)), last)
  assert.throws(() => findSnapshot([], 'latest'), { code: 'missing' })
  assert.throws(() => findSnapshot(snapshots, 'xyz'), { code: 'missing' })
  const twins = [last, { ...last, id: `${last.id.slice(0, 10)}${'0'.repeat(54)}` }]
  assert.throws(() => findSnapshot(twins, last.id.slice(0, 10)), { code: 'usage' })
})
