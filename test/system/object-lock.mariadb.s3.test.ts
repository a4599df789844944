import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  DeleteObjectCommand,
  HeadObjectCommand,
  ListObjectVersionsCommand,
  type S3Client,
} from '@aws-sdk/client-s3'
import { Guarded, untilGuarded, untilShipped } from '../support/guarded.ts'
import { createProbedBucket } from '../support/probed-bucket.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

const dayMs = 24 * 3600_000
const waitMaxMs = 600_000
const pollMs = 200

test('protect --lock: nobody deletes an archived segment before its time, and what was hidden comes back', async () => {
  const { ceph, bucket } = await createProbedBucket({ objectLock: true })
  const client = ceph.client()
  await using server = await startMariadb()
  await server.query('create database shop; create table shop.t (n int primary key)')
  const vault = ceph.url(bucket, 'vault')
  using guarded = await Guarded.begin('object-lock', { vault, env: ceph.env })
  const startedMs = Date.now()
  const protection = guarded.protect(server.url, ['--lock', '2d'])
  await using _ = protection
  await untilGuarded(protection)
  await server.query('insert into shop.t values (1), (2); flush binary logs')
  await server.query('insert into shop.t values (3)')
  await untilShipped(protection)
  const segment = await untilSegment(client, bucket)
  await protection[Symbol.asyncDispose]()

  const place = { Bucket: bucket, Key: segment.key }
  const head = await client.send(new HeadObjectCommand(place))
  assert.equal(head.ObjectLockMode, 'COMPLIANCE')
  const untilMs = head.ObjectLockRetainUntilDate?.getTime() ?? 0
  // To the second, as the store keeps it.
  assert.ok(untilMs >= startedMs + 2 * dayMs - 1000, new Date(untilMs).toISOString())
  assert.ok(untilMs <= Date.now() + 2 * dayMs + 1000, new Date(untilMs).toISOString())
  const version = { ...place, VersionId: segment.version, BypassGovernanceRetention: true }
  await assert.rejects(client.send(new DeleteObjectCommand(version)), { name: 'AccessDenied' })

  // Hidden behind a mark, and the mark taken away again.
  const { VersionId: mark } = await client.send(new DeleteObjectCommand(place))
  await assert.rejects(client.send(new HeadObjectCommand(place)), { name: 'NotFound' })
  await client.send(new DeleteObjectCommand({ ...place, VersionId: mark }))
  client.destroy()
  await guarded.done('vault', 'check', '--read-data', '--vault', vault)
  await using target = await startMariadb()
  await guarded.restored('--to', target.url)
  const rows = await target.query<{ n: number }>('select n from shop.t order by n')
  assert.deepEqual(
    rows.map(({ n }) => n),
    [1, 2, 3],
  )
})

/** Waits until a whole segment of the log is there: its parts are joined in the archiver's own time. */
async function untilSegment(
  client: S3Client,
  bucket: string,
): Promise<{ readonly key: string; readonly version: string | undefined }> {
  const untilMs = performance.now() + waitMaxMs
  const listing = new ListObjectVersionsCommand({ Bucket: bucket, Prefix: 'vault/log/' })
  for (;;) {
    const { Versions = [] } = await client.send(listing)
    const found = Versions.find(({ Key = '' }) => Key.includes('.full.'))
    if (found?.Key) return { key: found.Key, version: found.VersionId }
    if (performance.now() > untilMs) throw new Error('no segment was folded')
    await sleep(pollMs)
  }
}
