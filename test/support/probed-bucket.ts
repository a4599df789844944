import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { openStorage } from '#storage/all'
import { type Ceph, sharedCeph } from './servers/ceph.ts'

const prefix = 'vault'
const verdicts = new Map<boolean, Promise<string>>()

/**
 * A new bucket in which the place `vault` was already found out about: the verdict of another
 * bucket of the kind is copied there, so that not each of a hundred tests has to let puts race.
 */
export async function createProbedBucket(
  options: { readonly objectLock?: boolean } = {},
): Promise<{ readonly ceph: Ceph; readonly bucket: string }> {
  const ceph = await sharedCeph()
  const locked = options.objectLock ?? false
  const verdict = verdicts.get(locked) ?? probe(ceph, locked)
  verdicts.set(locked, verdict)
  const bucket = await ceph.createBucket({ objectLock: locked })
  const client = ceph.client()
  await client.send(new PutObjectCommand({ ...placeOf(bucket), Body: await verdict }))
  client.destroy()
  return { ceph, bucket }
}

async function probe(ceph: Ceph, objectLock: boolean): Promise<string> {
  const bucket = await ceph.createBucket({ objectLock })
  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  const storage = await openStorage(ceph.url(bucket, prefix), { credentials })
  await storage[Symbol.asyncDispose]()
  const client = ceph.client()
  const answer = await client.send(new GetObjectCommand(placeOf(bucket)))
  const verdict = await answer.Body?.transformToString()
  client.destroy()
  return verdict ?? ''
}

function placeOf(bucket: string) {
  return { Bucket: bucket, Key: `${prefix}/.redoubt-probe` }
}
