import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Storage } from '#storage'
import { openStorage } from '#storage/all'
import { Scratch } from '../support/scratch.ts'
import { sharedCeph } from '../support/servers/ceph.ts'
import { Restic } from '../support/servers/restic.ts'

test('a repository moves to a bucket and back, and stock restic reads it in both', async () => {
  using scratch = new Scratch('storage-restic')
  const files = scratch.join('files')
  mkdirSync(files)
  for (let i = 0; i < 50; i++) writeFileSync(`${files}/${i}`, Buffer.alloc(i * 5000, i))
  const ceph = await sharedCeph()
  const bucket = await ceph.createBucket()
  const folder = scratch.join('repository')
  const local = new Restic({ repository: folder, password: 'p' })
  const remote = new Restic({
    repository: `s3:${ceph.endpoint}/${bucket}/vault`,
    password: 'p',
    env: { ...ceph.env },
  })
  await local.run(['init'])
  await local.run(['backup', files])

  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  await using here = await openStorage(folder)
  await using there = await openStorage(ceph.url(bucket, 'vault'), { credentials })
  assert.ok((await copyMissing(here, there)) > 4)
  // Without a lock: over plain HTTP restic signs its uploads in a way that this gateway refuses.
  await remote.run(['check', '--read-data', '--no-lock'])

  writeFileSync(`${files}/new`, Buffer.alloc(100_000, 'new'))
  await local.run(['backup', files])
  assert.ok((await copyMissing(here, there)) > 1)
  await remote.run(['check', '--read-data', '--no-lock'])
  const [snapshots] = await remote.json(['snapshots', '--no-lock'])
  assert.ok(Array.isArray(snapshots) && snapshots.length === 2, 'both snapshots are there')

  // And back, into a folder that restic may write to again.
  const second = scratch.join('second')
  await using back = await openStorage(second, { create: true })
  await copyMissing(there, back)
  const returned = new Restic({ repository: second, password: 'p' })
  await returned.run(['check', '--read-data'])
  await returned.run(['backup', files])
})

async function copyMissing(source: Storage, target: Storage): Promise<number> {
  let count = 0
  for await (const { key } of source.list('')) {
    if (await target.stat(key)) continue
    await target.putStream(key, source.stream(key))
    count += 1
  }
  return count
}
