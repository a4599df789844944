import {
  GetObjectCommand,
  GetObjectLockConfigurationCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3'
import { Fault, isFault } from '#base/faults'
import { reservedName } from '../key.ts'
import type { Storage } from '../storage.ts'
import { answerName, checkListing, checkTag, fromS3 } from './answer.ts'
import type { S3Place } from './place.ts'
import { raceFairly } from './race.ts'
import { putRequest } from './request.ts'

const verdictName = `${reservedName}probe`
const heeded = 'If-None-Match is heeded here, also when puts race.\n'
const ignored = 'If-None-Match is not heeded here when puts race.\n'

/** Finds out whether the place can be used at all, and what its store can do. */
export async function probePlace(
  client: S3Client,
  place: S3Place,
  signal: AbortSignal | undefined,
): Promise<Storage['can']> {
  await checkRegion(client, place)
  const abortable = signal ? { abortSignal: signal } : {}
  const list = new ListObjectsV2Command({ Bucket: place.bucket, Prefix: place.prefix, MaxKeys: 1 })
  const doing = `open ${place.name}${place.endpoint ? ` at ${place.endpoint}` : ''}`
  try {
    checkListing(await client.send(list, abortable), doing)
  } catch (error) {
    throw fromS3(error, doing, signal)
  }
  const retention = await probeLock(client, place, signal)
  return { retention, conditionalPut: await probeCondition(client, place, retention, signal) }
}

async function checkRegion(client: S3Client, place: S3Place): Promise<void> {
  try {
    await client.config.region()
  } catch (error) {
    throw new Fault('usage', `open ${place.name}: no region known`, {
      hint: 'Give it by region= in the URL, or by AWS_REGION.',
      cause: error,
    })
  }
}

async function probeLock(
  client: S3Client,
  place: S3Place,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    const answer = await client.send(
      new GetObjectLockConfigurationCommand({ Bucket: place.bucket }),
      signal ? { abortSignal: signal } : {},
    )
    return answer.ObjectLockConfiguration?.ObjectLockEnabled === 'Enabled'
  } catch (error) {
    const fault = fromS3(error, `ask ${place.name} for its object lock`, signal)
    // There is none, the store knows no such thing, or we may not know.
    if (isFault(fault, 'missing', 'unsupported', 'denied', 'usage')) return false
    throw fault
  }
}

/**
 * Whether conditions are heeded. The first who opens a place lets puts race for one key, since
 * there are stores that heed a condition in peace and not in a race (Ceph's gateway in a bucket
 * with versions), and leaves the verdict in an object. Whoever comes later reads it, and tries once
 * more that a put over that object is refused: the place may have been copied to another store.
 */
async function probeCondition(
  client: S3Client,
  place: S3Place,
  locked: boolean,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const abortable = signal ? { abortSignal: signal } : {}
  const put = async (name: string, text: string, ifAbsent: boolean) => {
    const body = Buffer.from(text)
    const request = putRequest(place, name, { body, options: { ifAbsent }, locked })
    return checkTag(await client.send(new PutObjectCommand(request), abortable), `put ${name}`)
  }
  try {
    let verdict = await readVerdict(client, place, signal)
    if (verdict === undefined) {
      verdict = (await raceFairly(client, place, { locked, signal })) ? heeded : ignored
      await put(verdictName, verdict, false)
    }
    if (verdict !== heeded) return false
    await put(verdictName, verdict, true)
    return false
  } catch (error) {
    const fault = fromS3(error, `try a conditional put in ${place.name}`, signal)
    if (isFault(fault, 'exists')) return true
    if (isFault(fault, 'full')) return false
    // Whoever may only read has no use for conditions; a wrong key or signature is told at once.
    if (isFault(fault, 'denied') && answerName(fault) === 'AccessDenied') return false
    throw fault
  }
}

async function readVerdict(
  client: S3Client,
  place: S3Place,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const doing = `read ${place.name}${verdictName}`
  try {
    const answer = await client.send(
      new GetObjectCommand({ Bucket: place.bucket, Key: place.prefix + verdictName }),
      signal ? { abortSignal: signal } : {},
    )
    checkTag(answer, doing)
    return await answer.Body?.transformToString()
  } catch (error) {
    const fault = fromS3(error, doing, signal)
    if (isFault(fault, 'missing')) return undefined
    throw fault
  }
}
