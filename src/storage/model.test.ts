import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { seededRandom } from '#base/random'
import { openFsStorage } from './fs/fs.ts'
import { MemStorage } from './mem/mem.ts'
import type { Storage } from './storage.ts'
import { chunks, pattern, readAll } from './storage.suite.ts'
import { withFaults } from './wrap/fault.ts'
import { withRetry } from './wrap/retry.ts'

const runs = 10
const stepsPerRun = 60

/** What a call came to, in a form that two stores can be compared by. */
async function outcome(call: Promise<unknown>): Promise<unknown> {
  try {
    return await call
  } catch (error) {
    if (isFault(error)) return error.code
    throw error
  }
}

/** One random call, the same for the same random numbers. */
function step(random: () => number): (storage: Storage) => Promise<unknown> {
  const pick = (count: number) => Math.floor(random() * count)
  // Folders and files of like names; no key is the folder of another.
  const key = ['a', 'a-b', 'a.b', 'b/a', 'b/a-', 'b/aa', 'b/c/d', 'b/c/e', 'b/c-d'][pick(9)] ?? 'a'
  const prefix = ['', 'a', 'b', 'b/', 'b/a', 'b/c', 'b/c/', 'c'][pick(8)] ?? ''
  const [start, end, size] = [pick(300), pick(600), pick(500)]
  const info = async (storage: Storage) => (await storage.stat(key))?.sizeBytes
  const list = async (storage: Storage, options: { after?: string }) => {
    const infos = await Array.fromAsync(storage.list(prefix, options))
    return infos.map(({ key: name, sizeBytes }) => `${name} ${sizeBytes}`)
  }
  const calls: readonly ((storage: Storage) => Promise<unknown>)[] = [
    (storage) => storage.put(key, pattern(size)),
    (storage) => storage.put(key, pattern(size), { ifAbsent: true }),
    (storage) => storage.putStream(key, chunks(pattern(size), 64)),
    (storage) => storage.delete(key),
    (storage) => storage.get(key),
    (storage) => storage.get(key, { start, end }),
    (storage) => readAll(storage.stream(key, { start })),
    info,
    (storage) => list(storage, {}),
    (storage) => list(storage, { after: key }),
  ]
  return calls[pick(calls.length)] ?? info
}

test(`${runs} random histories look the same in a folder, in memory, and through faults`, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'redoubt-model-'))
  try {
    for (let seed = 1; seed <= runs; seed++) {
      const model = new MemStorage()
      const stores = [
        await openFsStorage(join(folder, String(seed)), { create: true }),
        faulty(new MemStorage(), seed),
      ]
      const random = seededRandom(seed)
      for (let i = 0; i < stepsPerRun; i++) {
        const call = step(random)
        const wanted = await outcome(call(model))
        for (const store of stores) {
          assert.deepEqual(await outcome(call(store)), wanted, `seed ${seed}, step ${i}`)
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

/**
 * Reads fail now and then; a conditional put in doubt may rightly come to another end, so that puts
 * do not.
 */
function faulty(storage: Storage, seed: number): Storage {
  const hits = (kind: string) => !kind.startsWith('put')
  const policy = { triesMax: 30, firstDelayMs: 0, delayMaxMs: 0 }
  return withRetry(withFaults(storage, { seed, rate: 0.2, hits }), policy)
}
