import { appendFileSync } from 'node:fs'
import type { ObjectInfo, Storage } from '#storage'
import * as real from '../../../src/storage/all.ts'

/** When a process dies at an operation: before it took effect, with half of the bytes sent, or behind it. */
export type CrashMoment = 'before' | 'middle' | 'after'

const crashAt = Number(process.env['REDOUBT_TEST_CRASH_AT'] ?? -1)
const moment = (process.env['REDOUBT_TEST_CRASH_MOMENT'] ?? 'before') as CrashMoment
const listFile = process.env['REDOUBT_TEST_OPERATIONS'] ?? ''
let operations = 0

/** Opens the store as the program does, and counts all that is done with it. */
export async function openStorage(...args: Parameters<typeof real.openStorage>): Promise<Storage> {
  return new MortalStorage(await real.openStorage(...args))
}

/** Each call is an operation; at the chosen one the process kills itself, as nothing else can stop it at once. */
class MortalStorage implements Storage {
  readonly url: string
  readonly can: Storage['can']
  readonly #inner: Storage

  constructor(inner: Storage) {
    this.#inner = inner
    this.url = inner.url
    this.can = inner.can
  }

  async put(...[key, parts, options]: Parameters<Storage['put']>): Promise<void> {
    const dies = begin('put', key)
    if (dies && moment === 'middle') {
      const whole = Buffer.concat(parts instanceof Uint8Array ? [parts] : parts)
      return this.#inner.putStream(
        key,
        halfOf(
          (async function* () {
            yield whole
          })(),
        ),
        options,
      )
    }
    await this.#inner.put(key, parts, options)
    if (dies) die()
  }

  async putStream(...[key, source, options]: Parameters<Storage['putStream']>): Promise<void> {
    const dies = begin('put', key)
    const bytes = dies && moment === 'middle' ? halfOf(source) : source
    await this.#inner.putStream(key, bytes, options)
    if (dies) die()
  }

  async delete(...[key, options]: Parameters<Storage['delete']>): Promise<void> {
    const dies = begin('delete', key)
    await this.#inner.delete(key, options)
    if (dies) die()
  }

  async get(...[key, options]: Parameters<Storage['get']>): Promise<Buffer> {
    const dies = begin('get', key)
    const bytes = await this.#inner.get(key, options)
    if (dies) die()
    return bytes
  }

  async *stream(
    ...[key, options]: Parameters<Storage['stream']>
  ): AsyncGenerator<Buffer, void, void> {
    const dies = begin('get', key)
    for await (const chunk of this.#inner.stream(key, options)) {
      yield chunk
      if (dies) die()
    }
    if (dies) die()
  }

  async stat(...[key, options]: Parameters<Storage['stat']>): Promise<ObjectInfo | undefined> {
    const dies = begin('stat', key)
    const info = await this.#inner.stat(key, options)
    if (dies) die()
    return info
  }

  async *list(
    ...[prefix, options]: Parameters<Storage['list']>
  ): AsyncGenerator<ObjectInfo, void, void> {
    const dies = begin('list', prefix)
    for await (const info of this.#inner.list(prefix, options)) {
      yield info
      if (dies) die()
    }
    if (dies) die()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]()
  }
}

/** Counts an operation; whether the process shall die at it, unless it did already. */
function begin(kind: string, key: string): boolean {
  const index = operations++
  if (listFile !== '') appendFileSync(listFile, `${kind} ${key}\n`)
  if (index !== crashAt) return false
  if (moment === 'before') die()
  return true
}

/** The first half of a stream's first chunk, and then the end. */
async function* halfOf(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of source) {
    yield chunk.subarray(0, chunk.length >> 1)
    break
  }
  die()
}

function die(): never {
  process.kill(process.pid, 'SIGKILL')
  // The signal is on its way; not one instruction of the program may run behind it.
  for (;;);
}
