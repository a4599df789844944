import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { FakeLog, position, source } from '../../test/support/archive.ts'
import { MemStorage } from '#storage/mem'
import { initVault, openForArchiving } from './vault.ts'

const { signal } = new AbortController()
const cost = { repository: { n: 2, r: 1, p: 1 }, identity: 1 }

test('a trim of the log is recorded in the catalog, and a check tells it from log that was lost', async () => {
  const storage = new MemStorage()
  const vault = await initVault(storage, { password: 'correct horse', cost, signal })
  {
    await using writer = await vault.archive.openWriter(source, { signal })
    for (const block of new FakeLog().blocks(0, 4500)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  const before = { history: 'h1', at: position(2500) }
  assert.ok((await vault.archive.trim(source, before, { signal })) > 0)
  // Nothing more to let go: nothing more to record.
  assert.equal(await vault.archive.trim(source, before, { signal }), 0)
  const [trim, ...more] = await vault.catalog.trims(source, { signal })
  assert.deepEqual([trim?.before, more], [before, []])
  assert.deepEqual(await vault.check({ signal, readData: true }), [])
  for await (const { key } of storage.list('catalog/trims/')) await storage.delete(key)
  const [lost] = await vault.check({ signal, readData: true })
  assert.deepEqual([lost?.severity, lost?.code], ['damaged', 'gap'])
})

test('a host that only archives may not record a trim', async () => {
  const storage = new MemStorage()
  const vault = await initVault(storage, { password: 'correct horse', cost, signal })
  const state = await vault.keys.enrol('host', { sources: [source], signal })
  const host = await openForArchiving(storage, { state, signal })
  const before = { history: 'h1', at: position(2500) }
  await host.catalog.addTrim({ source, before, sequence: 7 }, { signal })
  await assert.rejects(vault.catalog.trims(source, { signal }), (e) => isFault(e, 'forged'))
})
