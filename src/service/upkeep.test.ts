import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { initCheapVault } from '../../test/support/cheap-vault.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { openVaultAt } from './open.ts'
import { checkVault } from './upkeep.ts'

test('checkVault() tells of a base whose record is gone', async () => {
  using scratch = new Scratch('check-vault')
  const address = { url: scratch.join('vault'), index: 0 }
  await initCheapVault(address.url, 'pw')
  const { signal } = new AbortController()
  const around = { env: { REDOUBT_VAULT_PASSWORD: 'pw' }, log: silentLog, signal }
  const check = () => checkVault(address, { progress: createProgress('check') }, around)
  assert.deepEqual((await check()).log, [])
  {
    await using vault = await openVaultAt(address, around)
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
})
