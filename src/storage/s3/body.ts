import type { GetObjectCommandOutput } from '@aws-sdk/client-s3'
import { Fault } from '#base/faults'
import { fromS3 } from './answer.ts'

type Wanted = {
  readonly doing: string
  readonly start: number
  readonly end: number | undefined
  readonly whole: boolean
  readonly signal: AbortSignal | undefined
}

/** The body of a GET, after its headers proved to be an answer to what was asked. */
export function readBody(
  answer: GetObjectCommandOutput,
  wanted: Wanted,
): { sizeBytes: number; chunks: AsyncGenerator<Buffer, void, void> } {
  const { doing, start, end, whole } = wanted
  const body = answer.Body as (AsyncIterable<Buffer> & { destroy(): unknown }) | undefined
  const sizeBytes = answer.ContentLength
  const drop = (fault: Fault): never => {
    body?.destroy()
    throw fault
  }
  if (!body || sizeBytes === undefined || !answer.ETag) {
    return drop(new Fault('unreachable', `${doing}: the answer is not that of a store`))
  }
  if (!whole) {
    const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.ContentRange ?? '')
    const [first, last, size] = (range ?? []).slice(1).map(Number)
    if (first !== start || last === undefined || last + 1 - first !== sizeBytes) {
      const got = answer.ContentRange ?? 'no range'
      return drop(new Fault('protocol', `${doing}: asked from ${start}, answered with ${got}`))
    }
    const until = end ?? size ?? 0
    if (last + 1 < until) {
      const message = `${doing}: wanted bytes up to ${until}, object has ${size}`
      return drop(new Fault('corrupt', message))
    }
  }
  return { sizeBytes, chunks: chunksOf(body, sizeBytes, wanted) }
}

/** Yields exactly that many bytes, or throws. Leaving early closes the connection. */
async function* chunksOf(
  body: AsyncIterable<Buffer> & { destroy(): unknown },
  sizeBytes: number,
  { doing, signal }: Wanted,
): AsyncGenerator<Buffer, void, void> {
  let read = 0
  try {
    for await (const chunk of body) {
      signal?.throwIfAborted()
      read += chunk.length
      if (read > sizeBytes) break
      yield chunk
    }
  } catch (error) {
    throw fromS3(error, `${doing} after ${read} of ${sizeBytes} bytes`, signal)
  } finally {
    body.destroy()
  }
  if (read !== sizeBytes) {
    throw new Fault('unreachable', `${doing}: got ${read} of ${sizeBytes} bytes`)
  }
}
