import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { restoreFiles } from '#backup/files'
import { readWindows } from '#backup/window'
import type { Vault } from '#vault'
import { checkRepository } from '#vault/repository/check'
import { collect, position } from '../archive.ts'
import { assertSameTree, describeTree } from '../file-tree.ts'
import { metrics, metricsEnd, metricsLog, shop, type VaultWorld } from './vault-world.ts'

const signal = new AbortController().signal

/** What a vault must hold after a trial. */
export type Expected = {
  readonly url: string
  /** Snapshots of the tree that were acknowledged, and not forgotten since. */
  readonly snapshots: readonly string[]
  /** The log of the database at least up to there; none when undefined. */
  readonly logUntil?: string | undefined
  /** Also read every byte that is stored. */
  readonly readData: boolean
  /** Which of the snapshots is restored beside the newest one. */
  readonly sample: number
}

/** Proves that a vault is whole: nothing that was acknowledged is lost, no lock and no damage is left. */
export async function verifyVault(world: VaultWorld, expected: Expected): Promise<void> {
  const { snapshots } = expected
  await using vault = await world.openVault(expected.url)
  const readData = expected.readData ? ({ kind: 'all' } as const) : undefined
  const repository = await checkRepository(vault.repository, { readData, signal })
  const errors = repository.findings.filter(({ severity }) => severity === 'error')
  const log = await vault.check({ signal, readData: expected.readData })
  const wrong = [...errors, ...log.filter(({ severity }) => severity !== 'notes')]
  assert.equal(wrong.length, 0, `vault check: ${JSON.stringify(wrong)}`)
  assert.ok(repository.ok, 'vault check')
  // In a copy a snapshot has an id of its own, and names the one that it was.
  const stored = await vault.repository.snapshots({ signal })
  const there = new Map(
    stored.flatMap(({ id, original }) => [
      [id, id],
      [original ?? id, id],
    ]),
  )
  const lost = snapshots.filter((id) => !there.has(id))
  assert.equal(lost.length, 0, `snapshots that were acknowledged are gone: ${lost.join()}`)
  await verifyNoLocks(vault)
  if (expected.logUntil !== undefined) await verifyShop(world, vault, expected.logUntil)
  const sample = [snapshots.at(-1), snapshots[expected.sample % (snapshots.length || 1)]]
  for (const id of new Set(sample)) {
    const own = there.get(id ?? '')
    if (id !== undefined && own !== undefined) await verifyTree(world, vault, { id, own })
  }
}

/** Whoever takes a lock removes those of the dead. */
async function verifyNoLocks({ storage }: Vault): Promise<void> {
  const left: string[] = []
  for await (const { key } of storage.list('locks/')) left.push(key)
  assert.equal(left.length, 0, `locks were left: ${left.join()}`)
}

async function verifyTree(
  world: VaultWorld,
  vault: Vault,
  { id, own }: { readonly id: string; readonly own: string },
): Promise<void> {
  const directory = world.scratch.join(`restored-${id.slice(0, 12)}-${process.hrtime.bigint()}`)
  const onTrouble = (trouble: unknown) => assert.fail(`restore: ${JSON.stringify(trouble)}`)
  const { repository } = vault
  const tree = world.trees.get(id)
  assert.ok(tree, `snapshot ${id} is known`)
  await restoreFiles({ repository, directory, subpath: tree.path, at: own, onTrouble, signal })
  assertSameTree(describeTree(directory), tree.lines, `snapshot ${id}`)
  rmSync(directory, { recursive: true })
}

/** The window of the database is one, and its log is byte for byte the server's, up to there at least. */
async function verifyShop(world: VaultWorld, vault: Vault, until: string): Promise<void> {
  const nowMs = Date.now()
  const [report] = await readWindows({ vault, source: shop, nowMs, signal })
  assert.equal(report?.windows.filter(({ continuous }) => continuous).length, 1, 'windows')
  assert.deepEqual(report?.gaps, [], 'gaps')
  const [base] = report?.bases ?? []
  assert.ok(base, 'a base')
  const reader = await vault.archive.openReader(shop, { signal })
  let end = ''
  for await (const { segment, history, sizeBytes, next } of reader.segments(base.first, {
    signal,
  })) {
    const stored = await collect(await reader.read(segment, { signal, history }))
    const own = await world.segment(segment)
    assert.ok(stored.length >= sizeBytes, `${segment} is whole`)
    assert.ok(stored.equals(own.subarray(0, stored.length)), `${segment} is the server's`)
    end = next
  }
  assert.ok(end >= until, `the log ends at ${end}, and ${until} was acknowledged`)
}

/** The log of the second source is what it was made of, up to its end. */
export async function verifyMetrics(vault: Vault): Promise<void> {
  const reader = await vault.archive.openReader(metrics, { signal })
  const first = { history: metricsLog.history, at: position(0) }
  const parts: Buffer[] = []
  for await (const { segment, history } of reader.segments(first, { signal })) {
    parts.push(await collect(await reader.read(segment, { signal, history })))
  }
  assert.ok(Buffer.concat(parts).equals(metricsLog.bytes(0, metricsEnd)), 'the log of metrics')
}
