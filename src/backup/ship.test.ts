import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { openJournal } from '#journal'
import { MemStorage } from '#storage/mem'
import { initVault } from '#vault'
import { FakeLog, position, source } from '../../test/support/archive.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { Shipper, type ShipperOptions } from './ship.ts'

const { signal } = new AbortController()
const cost = { repository: { n: 2, r: 1, p: 1 }, identity: 1 }
const log = new FakeLog()

/** Ships the log up to a byte into a vault through a journal, and stops in good order. */
async function ship(
  storage: MemStorage,
  to: number,
  more: Pick<ShipperOptions, 'retainMs'>,
): Promise<void> {
  using scratch = new Scratch('ship')
  const vault = await initVault(storage, { password: 'pw', cost, signal })
  await using journal = await openJournal(scratch.join('journal'), { limitBytes: 1e6, signal })
  for (const block of log.blocks(0, to)) await journal.append(block, { signal })
  const stop = new AbortController()
  const shipped = Promise.withResolvers<void>()
  const shipper: Shipper = new Shipper({
    ...more,
    place: { url: 'mem:', takesBases: true, opened: vault, open: async () => vault },
    source,
    journal,
    stateDirectory: scratch.join('state'),
    eager: true,
    known: () => undefined,
    onDurable: () => {
      if (shipper.durable()?.at === position(to)) shipped.resolve()
    },
    onReach: () => undefined,
    onGap: () => undefined,
  })
  const running = shipper.run(stop.signal)
  await Promise.race([shipped.promise, running])
  stop.abort()
  await assert.rejects(running, { name: 'AbortError' })
}

async function fullsOf(storage: MemStorage): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of storage.list('log/')) if (key.includes('.full.')) keys.push(key)
  return keys
}

test('whole segments are shipped under object lock when that is asked for', async () => {
  const storage = new MemStorage()
  await ship(storage, 2500, { retainMs: 3_600_000 })
  const fulls = await fullsOf(storage)
  assert.equal(fulls.length, 2)
  for (const key of fulls)
    await assert.rejects(storage.delete(key), (error) => isFault(error, 'denied'))
})

test('without it they can be deleted, and a store that has no lock is refused', async () => {
  const storage = new MemStorage()
  await ship(storage, 1500, {})
  for (const key of await fullsOf(storage)) await storage.delete(key)
  const lockless = new MemStorage({ retention: false })
  await assert.rejects(ship(lockless, 1500, { retainMs: 3_600_000 }), (error) => {
    assert.ok(isFault(error, 'unsupported'))
    assert.match(error.message, /archive the log of shop under object lock: mem:.* has none/)
    return true
  })
})
