import {
  DeleteObjectCommand,
  GetObjectCommand,
  GetObjectLockConfigurationCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3'
import { Fault, isFault } from '#base/faults'
import { randomHex } from '#base/ids'
import { reservedName } from '../key.ts'
import type { Storage } from '../storage.ts'
import { answerName, fromS3 } from './answer.ts'
import type { S3Place } from './place.ts'
import { putRequest } from './request.ts'

const verdictName = `${reservedName}probe`
const heeded = 'If-None-Match is heeded here, also when puts race.\n'
const ignored = 'If-None-Match is not heeded here when puts race.\n'
const racers = 12

/** Finds out whether the place can be used at all, and what its store can do. */
export async function probePlace(
  client: S3Client,
  place: S3Place,
  signal: AbortSignal | undefined,
): Promise<Storage['can']> {
  await checkRegion(client, place)
  const abortable = signal ? { abortSignal: signal } : {}
  const list = new ListObjectsV2Command({ Bucket: place.bucket, Prefix: place.prefix, MaxKeys: 1 })
  try {
    await client.send(list, abortable)
  } catch (error) {
    const at = place.endpoint ? ` at ${place.endpoint}` : ''
    throw fromS3(error, `open ${place.name}${at}`, signal)
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
 * Whether conditions are heeded. The first who opens a place lets puts race for one key, since there are stores that
 * heed a condition in peace and not in a race (Ceph's gateway in a bucket with versions), and leaves the verdict in
 * an object. Whoever comes later reads it, and tries once more that a put over that object is refused: the
 * place may have been copied to another store.
 */
async function probeCondition(
  client: S3Client,
  place: S3Place,
  locked: boolean,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const abortable = signal ? { abortSignal: signal } : {}
  const put = (name: string, body: string, ifAbsent: boolean) =>
    client.send(
      new PutObjectCommand(
        putRequest(place, name, { body: Buffer.from(body), options: { ifAbsent }, locked }),
      ),
      abortable,
    )
  try {
    let verdict = await readVerdict(client, place, signal)
    if (verdict === undefined) {
      verdict = (await race(client, place, put)) ? heeded : ignored
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
  try {
    const answer = await client.send(
      new GetObjectCommand({ Bucket: place.bucket, Key: place.prefix + verdictName }),
      signal ? { abortSignal: signal } : {},
    )
    return await answer.Body?.transformToString()
  } catch (error) {
    const fault = fromS3(error, `read ${place.name}${verdictName}`, signal)
    if (isFault(fault, 'missing')) return undefined
    throw fault
  }
}

/** Whether of many puts of one new key, sent at once, exactly one is taken. */
async function race(
  client: S3Client,
  place: S3Place,
  put: (name: string, body: string, ifAbsent: boolean) => Promise<unknown>,
): Promise<boolean> {
  const name = `${reservedName}race-${randomHex(8)}`
  const results = await Promise.allSettled(
    Array.from({ length: racers }, () => put(name, 'race', true)),
  )
  const winners = results.filter((result) => result.status === 'fulfilled').length
  for (const result of results) {
    if (result.status === 'fulfilled') continue
    const fault = fromS3(result.reason, `race for ${name}`, undefined)
    // Losers, or a store that will not hear of conditions. But a racer that lost its connection proves nothing:
    // the whole probe is tried again.
    if (!isFault(fault, 'exists', 'conflict', 'usage', 'unsupported')) throw fault
  }
  await client.send(new DeleteObjectCommand({ Bucket: place.bucket, Key: place.prefix + name }))
  return winners === 1
}
