import { systemTime } from '#base/time'
import type { Storage } from '#storage'
import { openFsStorage } from '../../src/storage/fs/fs.ts'
import { openRepository } from '../../src/vault/repository/open.ts'
import { pruneRepository } from '../../src/vault/repository/prune.ts'
import { parseUnusedLimit } from '../../src/vault/repository/prune-plan.ts'
import { password } from './repositories.ts'

// Prunes the repository in a folder with no grace period, and kills itself at the given writing operation: before it
// when the number is even, behind it when it is odd. Prints how many there were.

const [dir = '', killAtText = '-1'] = process.argv.slice(2)
const killAt = Number(killAtText)
const signal = new AbortController().signal
let operations = 0

async function counted<T>(work: () => Promise<T>): Promise<T> {
  const index = operations++
  if (index === killAt && killAt % 2 === 0) process.kill(process.pid, 'SIGKILL')
  const result = await work()
  if (index === killAt) process.kill(process.pid, 'SIGKILL')
  return result
}

const inner = await openFsStorage(dir)
const storage: Storage = {
  url: inner.url,
  can: inner.can,
  put: async (...args) => counted(async () => inner.put(...args)),
  putStream: async (...args) => counted(async () => inner.putStream(...args)),
  delete: async (...args) => counted(async () => inner.delete(...args)),
  get: async (...args) => inner.get(...args),
  stream: (...args) => inner.stream(...args),
  stat: async (...args) => inner.stat(...args),
  list: (...args) => inner.list(...args),
  [Symbol.asyncDispose]: async () => inner[Symbol.asyncDispose](),
}

await using repository = await openRepository(storage, password, { signal })
const report = await pruneRepository(repository, {
  signal,
  time: systemTime,
  graceMs: 0,
  maxUnused: parseUnusedLimit('0'),
})
process.stdout.write(`${JSON.stringify({ operations, ...report })}\n`)
