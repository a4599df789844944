import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeLog } from '../../test/support/archive.ts'
import { MemStorage } from '#storage/mem'
import { initVault, type Vault } from '#vault'
import { findUnnamedSources } from './unnamed-sources.ts'

const { signal } = new AbortController()
const cost = { repository: { n: 2, r: 8, p: 1 }, identity: 1 }

async function find(vault: Vault): Promise<string[]> {
  const snapshots = await vault.repository.snapshots({ signal })
  const found = await findUnnamedSources(vault, snapshots, { signal })
  return found.map(({ severity, said }) => `${severity} ${said.split(',')[0]}`)
}

async function record(vault: Vault, name: string): Promise<void> {
  const facts = { engine: 'mysql', flavor: 'mysql', version: '9', url: 'mysql://h/' }
  await vault.catalog.addSource({ name, ...facts }, { signal })
}

async function saveBase(vault: Vault, source: string): Promise<void> {
  const facts = { tree: 'ab'.repeat(32), paths: ['/x'], hostname: 'h', username: 'u' }
  const tags = ['redoubt-base', `source=${source}`]
  const time = '2026-01-01T00:00:00Z'
  await vault.repository.saveSnapshot({ ...facts, time, tags }, { signal })
}

test('a source that has bases or log and no record is found: damage where bases are lost to it', async () => {
  const storage = new MemStorage()
  await using vault = await initVault(storage, { password: 'pw', cost, signal })
  await record(vault, 'shop')
  await record(vault, 'till')
  await saveBase(vault, 'shop')
  {
    await using writer = await vault.archive.openWriter('till', { signal })
    await writer.append(new FakeLog().block(0, 300), { signal })
    await writer.flush({ signal })
    // One whose archiver waits for its server has a lease and nothing else.
    await using _waiting = await vault.archive.openWriter('early', { signal })
    assert.deepEqual(await find(vault), [])
  }
  for await (const { key } of storage.list('catalog/sources/')) await storage.delete(key)
  const found = ['damaged the vault holds bases of shop', 'warns the vault holds log of till']
  assert.deepEqual(await find(vault), found)
  await record(vault, 'shop')
  assert.deepEqual(await find(vault), found.slice(1))
})

test('records of sources that cannot be read are left to the check of the catalog', async () => {
  const storage = new MemStorage()
  await using vault = await initVault(storage, { password: 'pw', cost, signal })
  await saveBase(vault, 'shop')
  await record(vault, 'till')
  for await (const { key } of storage.list('catalog/sources/')) {
    await storage.put(key, Buffer.from('nothing'))
  }
  assert.deepEqual(await find(vault), [])
})
