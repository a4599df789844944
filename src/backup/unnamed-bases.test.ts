import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemStorage } from '#storage/mem'
import { initVault, type Vault } from '#vault'
import { hastyTime as time } from '../../test/support/repositories.ts'
import { findUnnamedBases } from './unnamed-bases.ts'

const { signal } = new AbortController()
const cost = { repository: { n: 2, r: 8, p: 1 }, identity: 1 }
const position = { history: 'a', at: '1' }

async function saveSnapshot(vault: Vault, day: number, tags: readonly string[]): Promise<string> {
  const facts = { tree: 'ab'.repeat(32), paths: ['/x'], hostname: 'h', username: 'u' }
  const stamp = `2026-01-0${day}T00:00:00Z`
  return (await vault.repository.saveSnapshot({ ...facts, time: stamp, tags }, { signal })).id
}

async function addBase(vault: Vault, source: string, snapshot: string): Promise<void> {
  const at = { first: position, consistent: position, consistentUs: 1n, facts: {} }
  await vault.catalog.addBase({ source, name: snapshot.slice(0, 8), snapshot, ...at }, { signal })
}

async function find(vault: Vault): Promise<string[]> {
  const snapshots = await vault.repository.snapshots({ signal })
  const found = await findUnnamedBases(vault, snapshots, { signal })
  return found.map(({ severity, object }) => `${severity} ${object}`).sort()
}

const baseOf = (source: string) => ['redoubt-base', `source=${source}`, 'engine=mysql']

test('a base that no record names is found; damage where it is the only one of its source', async () => {
  await using vault = await initVault(new MemStorage(), { password: 'pw', cost, signal })
  await saveSnapshot(vault, 1, [])
  await saveSnapshot(vault, 2, ['source=shop'])
  const one = await saveSnapshot(vault, 3, baseOf('shop'))
  await addBase(vault, 'shop', one)
  assert.deepEqual(await find(vault), [])
  const two = await saveSnapshot(vault, 4, baseOf('shop'))
  const other = await saveSnapshot(vault, 5, [...baseOf('odd = name'), 'mine'])
  const wanted = [`damaged snapshots/${other}`, `warns snapshots/${two}`]
  assert.deepEqual(await find(vault), wanted)
  // A record of another source names it not.
  await addBase(vault, 'shop', other)
  assert.deepEqual(await find(vault), wanted)
  await addBase(vault, 'odd = name', other)
  await addBase(vault, 'shop', two)
  assert.deepEqual(await find(vault), [])
})

test('nothing is said of a base that may be on its way into the catalog', async () => {
  await using vault = await initVault(new MemStorage(), { password: 'pw', cost, signal })
  {
    await using _taking = await vault.repository.lock('shared', { signal, time })
    await saveSnapshot(vault, 3, baseOf('shop'))
    assert.deepEqual(await find(vault), [])
  }
  assert.equal((await find(vault)).length, 1)
})

test('records that cannot be read are left to the check of the catalog', async () => {
  const storage = new MemStorage()
  await using vault = await initVault(storage, { password: 'pw', cost, signal })
  const one = await saveSnapshot(vault, 3, baseOf('shop'))
  await addBase(vault, 'shop', one)
  for await (const { key } of storage.list('catalog/bases/')) {
    await storage.put(key, Buffer.from('nothing'))
  }
  assert.deepEqual(await find(vault), [])
  assert.equal((await vault.check({ signal, readData: false })).length, 1)
})
