import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  makeRepository,
  noise,
  password,
  saveFolder,
  writeObjects,
} from '../../../test/support/repositories.ts'
import { sharedCeph } from '../../../test/support/servers/ceph.ts'
import { Restic } from '../../../test/support/servers/restic.ts'
import type { Storage } from '#storage'
import { withRetry } from '../../storage/wrap/retry.ts'
import { openS3Storage } from '../../storage/s3/s3.ts'
import { checkRepository } from './check.ts'
import { copySnapshots } from './copy.ts'
import { forgetSnapshots } from './forget.ts'
import { openRepository } from './open.ts'
import { pruneRepository } from './prune.ts'
import { parseUnusedLimit } from './prune-plan.ts'

const signal = new AbortController().signal

async function openBucket() {
  const ceph = await sharedCeph()
  const bucket = await ceph.createBucket()
  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  return withRetry(await openS3Storage(ceph.url(bucket, 'vault'), { credentials }))
}

/** Stock restic looks at what the bucket holds; its own client and this gateway do not agree on signatures. */
async function judge(storage: Storage): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'redoubt-upkeep-'))
  try {
    await writeObjects(storage, dir)
    await new Restic({ repository: dir, password }).run(['check', '--read-data'])
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

test('upkeep on S3: locks, forget, prune, copy and check, with stock restic as the judge', async () => {
  const first = await openBucket()
  await using repository = await makeRepository(first)
  const shared = { shared: noise('shared', 400_000), folder: { leaf: Buffer.from('leaf') } }
  for (let day = 1; day <= 3; day++) {
    const folder = { ...shared, own: noise(`day ${day}`, 60_000) }
    await saveFolder(repository, folder, { time: `2026-01-0${day}T00:00:00Z` })
  }
  {
    await using _lock = await repository.lock('exclusive', { signal })
    await using other = await openRepository(first, password, { signal })
    await assert.rejects(other.lock('shared', { signal }), { code: 'locked' })
  }
  await forgetSnapshots(repository, { signal, rules: { last: 1 } })
  const rules = { maxUnused: parseUnusedLimit('0') }
  const marked = await pruneRepository(repository, { signal, ...rules })
  assert.ok(marked.marked >= 2 && marked.deleted === 0, JSON.stringify(marked))
  await judge(first)
  const swept = await pruneRepository(repository, { signal, ...rules, graceMs: 0 })
  assert.equal(swept.deleted, marked.marked)
  await judge(first)

  const second = await openBucket()
  await using target = await makeRepository(second)
  assert.equal((await copySnapshots(repository, target, { signal })).copied.length, 1)
  await judge(second)
  const report = await checkRepository(target, { signal, readData: { kind: 'all' } })
  assert.deepEqual(report.findings, [])
})
