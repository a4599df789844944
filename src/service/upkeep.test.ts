import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { initCheapVault } from '../../test/support/cheap-vault.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { openVaultAt } from './open.ts'
import { checkVault } from './upkeep.ts'

const shop = { name: 'shop', engine: 'mysql', flavor: 'mysql', version: '9', url: 'mysql://h/' }

test('checkVault() tells of a base whose record is gone, and of a source whose record is', async () => {
  using scratch = new Scratch('check-vault')
  const address = { url: scratch.join('vault'), index: 0 }
  await initCheapVault(address.url, 'pw')
  const { signal } = new AbortController()
  const around = { env: { REDOUBT_VAULT_PASSWORD: 'pw' }, log: silentLog, signal }
  const check = () => checkVault(address, { progress: createProgress('check') }, around)
  assert.deepEqual((await check()).log, [])
  {
    await using vault = await openVaultAt(address, around)
    await vault.catalog.addSource(shop, { signal })
    const facts = { tree: 'ab'.repeat(32), paths: ['/redoubt/shop'], time: '2026-01-01T00:00:00Z' }
    await vault.repository.saveSnapshot(
      { ...facts, tags: ['redoubt-base', 'source=shop'] },
      { signal },
    )
  }
  const { ok, log } = await check()
  assert.equal(ok, false)
  assert.deepEqual(
    log.map(({ severity, code }) => `${severity} ${code}`),
    ['damaged unnamed'],
  )
  rmSync(join(address.url, 'catalog/sources'), { recursive: true })
  const both = (await check()).log
  assert.deepEqual(
    both.map(({ severity, code, object }) => `${severity} ${code} ${object?.split('/')[0]}`),
    ['damaged unnamed snapshots', 'damaged unnamed undefined'],
  )
  assert.match(both[1]?.said ?? '', /bases of shop, but no record/)
})
