import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  hastyTime,
  makeRepository,
  noise,
  password,
  readObjects,
  saveFolder,
} from '../../../test/support/repositories.ts'
import { Restic } from '../../../test/support/servers/restic.ts'
import { openFsStorage } from '../../storage/fs/fs.ts'
import type { Storage } from '#storage'
import { checkRepository } from './check.ts'
import { openRepository } from './open.ts'

const signal = new AbortController().signal
let dir = ''
let storage: Storage

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'redoubt-check-'))
  storage = await openFsStorage(join(dir, 'repo'), { create: true })
  const repository = await makeRepository(storage)
  await saveFolder(
    repository,
    { ours: noise('ours', 300_000), folder: { file: Buffer.from('x') } },
    { time: '2026-01-01T00:00:00Z' },
  )
  for (const version of ['0.14', '0.19'] as const) {
    await writeFile(join(dir, version), noise(version, 200_000))
    await new Restic({ repository: join(dir, 'repo'), password, version }).run(
      ['backup', version],
      { cwd: dir },
    )
  }
})

after(async () => {
  await storage[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

/** Whether all is well, by us and by stock restic. */
async function judge(): Promise<{ readonly ours: boolean; readonly theirs: boolean }> {
  await using repository = await openRepository(storage, password, { signal })
  const report = await checkRepository(repository, {
    signal,
    readData: { kind: 'all' },
    time: hastyTime,
  })
  const restic = new Restic({ repository: join(dir, 'repo'), password })
  const { code } = await restic.run(['check', '--read-data'], { codes: [0, 1] })
  return { ours: report.ok, theirs: code === 0 }
}

test('a repository of both versions of stock restic and of ours is sound, by us and by them', async () => {
  assert.deepEqual(await judge(), { ours: true, theirs: true })
})

test('what stock restic finds damaged, and nothing else, we find damaged', async () => {
  const objects = await readObjects(storage)
  let tried = 0
  let found = 0
  for (const [key, bytes] of objects) {
    if (key === 'config' || key.startsWith('keys/')) continue
    const flipped = Buffer.from(bytes)
    flipped[bytes.length >> 1] = (flipped[bytes.length >> 1] ?? 0) ^ 16
    for (const damaged of [flipped, bytes.subarray(0, bytes.length >> 1), undefined]) {
      if (damaged) await storage.put(key, damaged)
      else await storage.delete(key)
      const { ours, theirs } = await judge()
      await storage.put(key, bytes)
      assert.equal(ours, theirs, `${key} ${damaged?.length ?? 'deleted'}`)
      tried += 1
      if (!ours) found += 1
    }
  }
  assert.ok(tried >= 30 && found > tried * 0.8, `${found} of ${tried}`)
})
