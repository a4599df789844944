import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import {
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { eachLimit } from '#base/tasks'
import { createProbedBucket } from '../../../test/support/probed-bucket.ts'
import { Ceph, cephKmsKeyId, sharedCeph } from '../../../test/support/servers/ceph.ts'
import type { Storage } from '../storage.ts'
import { chunks, collect, pattern, rejects, storageSuite } from '../storage.suite.ts'
import { openS3Storage, type S3Options } from './s3.ts'

/** The size of the large stream: `REDOUBT_S3_STREAM_MB=5120` for the long run. */
const streamMb = Number(process.env['REDOUBT_S3_STREAM_MB'] ?? 200)
const streamBytes = 11_000_003

function openIn(
  { ceph, bucket }: { ceph: Ceph; bucket: string },
  more = '',
  options: S3Options = {},
): Promise<Storage> {
  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  const url = `${ceph.url(bucket, 'vault')}&part-size=5MiB${more}`
  return openS3Storage(url, { credentials, ...options })
}

storageSuite('s3', async () => openIn(await createProbedBucket()), { streamBytes })
storageSuite(
  's3 with object lock',
  async () => openIn(await createProbedBucket({ objectLock: true })),
  {
    streamBytes,
  },
)
storageSuite(
  's3 with encryption by the server',
  async () => openIn(await createProbedBucket(), `&sse=aws:kms&sse-kms-key-id=${cephKmsKeyId}`),
  { streamBytes },
)

test('what the store can do is tried, and the verdict kept for later', async () => {
  const ceph = await sharedCeph()
  const plain = { ceph, bucket: await ceph.createBucket() }
  await using first = await openIn(plain)
  await using second = await openIn(plain)
  assert.deepEqual(first.can, { conditionalPut: true, retention: false })
  assert.deepEqual(second.can, first.can)
  assert.deepEqual(await collect(second.list('')), [], 'the verdict is no object of ours')
  // This gateway heeds conditions in a bucket with versions, but not when puts race.
  const locked = { ceph, bucket: await ceph.createBucket({ objectLock: true }) }
  await using third = await openIn(locked)
  assert.deepEqual(third.can, { conditionalPut: false, retention: true })
  const before = await locked.ceph.versions(locked.bucket)
  await using fourth = await openIn(locked)
  assert.deepEqual(fourth.can, third.can)
  assert.equal((await locked.ceph.versions(locked.bucket)).length, before.length)
})

test('list() pages through 10,000 keys', async () => {
  await using storage = await openIn(await createProbedBucket())
  const keys = Array.from({ length: 10_000 }, (_, i) => `k/${(i * 7919) % 10_000}`)
  await eachLimit(keys, 32, undefined, (key) => storage.put(key, Buffer.alloc(0)))
  const sorted = keys.toSorted()
  assert.deepEqual(
    (await collect(storage.list(''))).map((info) => info.key),
    sorted,
  )
  const after = sorted[4321] ?? ''
  const rest = await collect(storage.list('k/', { after }))
  assert.deepEqual(
    rest.map((info) => info.key),
    sorted.slice(4322),
  )
})

test(`putStream() stores ${streamMb} MB in parts, in bounded memory`, async () => {
  // The throw-away store keeps objects in memory: too much for what is larger than that.
  await using own = streamMb > 1000 ? await Ceph.start({ store: 'bluestore' }) : undefined
  const ceph = own ?? (await sharedCeph())
  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  const url = ceph.url(await ceph.createBucket(), 'large')
  await using storage = await openS3Storage(url, { credentials })
  const sent = createHash('sha256')
  const block = pattern(1024 * 1024)
  async function* source() {
    for (let i = 0; i < streamMb; i++) {
      block.writeUInt32LE(i, 0)
      sent.update(block)
      yield block
    }
  }
  await storage.putStream('big', source())
  assert.equal((await storage.stat('big'))?.sizeBytes, streamMb * 1024 * 1024)
  const received = createHash('sha256')
  for await (const chunk of storage.stream('big')) received.update(chunk)
  assert.equal(received.digest('hex'), sent.digest('hex'))
  const peakMb = process.resourceUsage().maxRSS / 1024
  assert.ok(peakMb < 512, `peak of ${Math.round(peakMb)} MB is below 512`)
})

test('storage class and encryption reach the store', async () => {
  const ceph = await Ceph.start()
  await using _ = ceph
  await ceph.addStorageClass('COLD')
  const place = { ceph, bucket: await ceph.createBucket() }
  const kms = `&storage-class=COLD&sse=aws:kms&sse-kms-key-id=${cephKmsKeyId}`
  await using storage = await openIn(place, kms)
  await storage.put('small', pattern(10))
  await storage.putStream('large', chunks(pattern(streamBytes), 65_536))
  for (const key of ['small', 'large']) {
    const client = ceph.client()
    const head = await client.send(
      new HeadObjectCommand({ Bucket: place.bucket, Key: `vault/${key}` }),
    )
    client.destroy()
    assert.equal(head.StorageClass, 'COLD')
    assert.equal(head.ServerSideEncryption, 'aws:kms')
    assert.equal(head.SSEKMSKeyId, cephKmsKeyId)
  }
  for (const more of ['&storage-class=NO_SUCH_CLASS', '&sse=aws:kms&sse-kms-key-id=none']) {
    const fresh = { ceph, bucket: await ceph.createBucket() }
    await rejects(openIn(fresh, more), 'usage')
  }
})

test('retention keeps the bytes that were locked', async () => {
  const place = await createProbedBucket({ objectLock: true })
  await using storage = await openIn(place)
  await storage.put('kept', Buffer.from('first'), { retainUntilMs: Date.now() + 60_000 })
  await storage.put('kept', Buffer.from('second'))
  const versions = await place.ceph.versions(place.bucket)
  assert.equal(versions.filter(({ key }) => key === 'vault/kept').length, 2, 'both are there')
  await storage.put('soon', Buffer.from('x'), { retainUntilMs: Date.now() + 3_600_000 })
  await rejects(storage.delete('soon'), 'denied')
  const client = place.ceph.client()
  const modeOf = async (key: string) => {
    const head = new HeadObjectCommand({ Bucket: place.bucket, Key: `vault/${key}` })
    return (await client.send(head)).ObjectLockMode
  }
  assert.equal(await modeOf('soon'), 'COMPLIANCE')
  await using later = await openIn(place, '&lock-mode=governance', {
    now: () => Date.now() + 7_200_000,
  })
  await later.put('governed', pattern(1), { retainUntilMs: Date.now() + 10_000_000 })
  assert.equal(await modeOf('governed'), 'GOVERNANCE')
  client.destroy()
  await later.delete('soon')
  assert.equal(await later.stat('soon'), undefined)
})

test('uploads that a dead writer began are swept, fresh ones are not', async () => {
  const place = await createProbedBucket()
  const client = place.ceph.client()
  const Bucket = place.bucket
  for (const Key of ['vault/dead', 'elsewhere/alive']) {
    const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key }))
    const part = { Bucket, Key, UploadId, PartNumber: 1, Body: pattern(100) }
    await client.send(new UploadPartCommand(part))
  }
  const uploads = async () => {
    const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket }))
    return Uploads.map(({ Key = '' }) => Key)
  }
  const source = () => chunks(pattern(streamBytes), 99_991)
  await using fresh = await openIn(place)
  await fresh.putStream('a', source())
  assert.deepEqual(await uploads(), ['elsewhere/alive', 'vault/dead'])
  await using later = await openIn(place, '', { now: () => Date.now() + 3 * 86_400_000 })
  await later.putStream('b', source())
  assert.deepEqual(await uploads(), ['elsewhere/alive'])
  async function* failing() {
    yield* source()
    throw new Error('the source failed')
  }
  await assert.rejects(later.putStream('c', failing()), /the source failed/)
  assert.deepEqual(await uploads(), ['elsewhere/alive'], 'a failed upload leaves no parts')
  client.destroy()
})

test('names of others in the bucket are not listed', async () => {
  const place = await createProbedBucket()
  const client = place.ceph.client()
  for (const name of ['vault/a b', 'vault/ä', 'vault/', 'vault/x/', 'vaulted/y', 'vault/good']) {
    await client.send(new PutObjectCommand({ Bucket: place.bucket, Key: name, Body: 'x' }))
  }
  client.destroy()
  await using storage = await openIn(place)
  assert.deepEqual(
    (await collect(storage.list(''))).map((info) => info.key),
    ['good'],
  )
})

test('a full bucket is said to be full, and can still be read', async () => {
  const place = await createProbedBucket()
  await using storage = await openIn(place, '', {
    retry: { triesMax: 1, firstDelayMs: 0, delayMaxMs: 0 },
  })
  await storage.put('before', pattern(1000))
  await place.ceph.limitBucket(place.bucket, 4096)
  await rejects(storage.put('more', pattern(10_000)), 'full')
  await rejects(storage.putStream('more', chunks(pattern(10_000), 1000)), 'full')
  await rejects(storage.putStream('more', chunks(pattern(streamBytes), 65_536)), 'full')
  assert.deepEqual(await storage.get('before'), pattern(1000))
  assert.deepEqual(
    (await collect(storage.list(''))).map((info) => info.key),
    ['before'],
  )
  await using again = await openIn(place)
  assert.deepEqual(await again.get('before'), pattern(1000))
  await place.ceph.limitBucket(place.bucket, 0)
  await storage.put('more', pattern(10_000))
})

test('wrong credentials, buckets and hosts are told apart', async () => {
  const place = await createProbedBucket()
  const { ceph } = place
  const right = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  const wrongSecret = { ...right, secretAccessKey: 'not the secret' }
  await rejects(openIn(place, '', { credentials: wrongSecret }), 'denied')
  await rejects(openIn(place, '', { credentials: { ...right, accessKeyId: 'NOBODY' } }), 'denied')
  await rejects(openIn({ ceph, bucket: 'no-such-bucket' }), 'missing')
  const retry = { triesMax: 1, firstDelayMs: 0, delayMaxMs: 0 }
  for (const host of ['127.0.0.1:9', 'no-such-host.invalid']) {
    const url = `s3://${place.bucket}/?endpoint=http://${host}&region=x`
    await rejects(openS3Storage(url, { credentials: right, retry }), 'unreachable')
  }
  await using storage = await openIn(place)
  const other = await ceph.createBucket()
  await using gone = await openIn({ ceph, bucket: other })
  await ceph.admin('bucket', 'rm', `--bucket=${other}`, '--purge-objects', '--bypass-gc')
  await rejects(gone.stat('a'), 'missing')
  await rejects(gone.get('a'), 'missing')
  await rejects(gone.delete('a'), 'missing')
  await rejects(collect(gone.list('')), 'missing')
  await rejects(gone.put('a', pattern(1)), 'missing')
  assert.equal(await storage.stat('a'), undefined)
})
