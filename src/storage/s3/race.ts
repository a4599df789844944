import { Readable } from 'node:stream'
import { DeleteObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { isFault } from '#base/faults'
import { randomHex } from '#base/ids'
import { systemTime } from '#base/time'
import { reservedName } from '../key.ts'
import { checkTag, fromS3 } from './answer.ts'
import type { S3Place } from './place.ts'
import { putRequest } from './request.ts'

type RaceOptions = { readonly locked: boolean; readonly signal: AbortSignal | undefined }

const racers = 12
const rounds = 4
/** How long a request may take from having left here to being looked at there. */
const startMs = 100

/**
 * Whether of many conditional puts of one new key exactly one is taken, several times over: on a
 * busy machine one race alone may look fair by chance. All of them are held before their last byte
 * until every one is under way, since requests that merely leave at once may well be served one
 * after the other.
 */
export async function raceFairly(
  client: S3Client,
  place: S3Place,
  options: RaceOptions,
): Promise<boolean> {
  for (let round = 0; round < rounds; round++) {
    if (!(await runRace(client, place, options))) return false
  }
  return true
}

async function runRace(
  client: S3Client,
  place: S3Place,
  { locked, signal }: RaceOptions,
): Promise<boolean> {
  const abortable = signal ? { abortSignal: signal } : {}
  const name = `${reservedName}race-${randomHex(8)}`
  const doing = `race for ${name}`
  const start = new StartingLine(racers)
  const results = await Promise.allSettled(
    Array.from({ length: racers }, async () => {
      const body = Buffer.from('Puts of this object race.\n')
      const request = putRequest(place, name, { body, options: { ifAbsent: true }, locked })
      const command = new PutObjectCommand(request)
      holdLastByte(command, body, start)
      try {
        checkTag(await client.send(command, abortable), doing)
      } finally {
        // One that was refused at once must not keep the others waiting.
        start.arrive()
      }
    }),
  )
  for (const result of results) {
    if (result.status === 'fulfilled') continue
    const fault = fromS3(result.reason, doing, signal)
    // Losers, or a store that will not hear of conditions. But a racer that lost its connection
    // proves nothing: the whole probe is tried again.
    if (!isFault(fault, 'exists', 'conflict', 'usage', 'unsupported')) throw fault
  }
  const winners = results.filter((result) => result.status === 'fulfilled').length
  const object = { Bucket: place.bucket, Key: place.prefix + name }
  await client.send(new DeleteObjectCommand(object), abortable)
  return winners === 1
}

/** Where racers wait for each other. */
class StartingLine {
  readonly #go = Promise.withResolvers<void>()
  #missing: number

  constructor(count: number) {
    this.#missing = count
  }

  arrive(): void {
    this.#missing -= 1
    if (this.#missing === 0) void systemTime.sleep(startMs).then(this.#go.resolve)
  }

  async wait(): Promise<void> {
    this.arrive()
    await this.#go.promise
  }
}

/**
 * Lets the signed request go out but for the last byte of its body, which comes when all have
 * arrived.
 */
function holdLastByte(command: PutObjectCommand, body: Buffer, start: StartingLine): void {
  async function* held() {
    yield body.subarray(0, -1)
    await start.wait()
    yield body.subarray(-1)
  }
  command.middlewareStack.add(
    (next) => (args) => {
      Object.assign(args.request as object, { body: Readable.from(held(), { objectMode: false }) })
      return next(args)
    },
    { step: 'deserialize', name: 'holdLastByte', priority: 'low' },
  )
}
