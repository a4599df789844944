import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/faults'
import { LinkWorld } from '../../test/support/link-world.ts'
import type { Migrated } from './migrate.ts'

const gone = () => new Fault('unreachable', 'ask the server: it does not answer')

/** How many calls a migration without trouble takes of each side. */
async function countCalls(): Promise<{ readonly source: number; readonly target: number }> {
  using world = new LinkWorld()
  await world.migrate()
  return { source: world.sourceLife.calls, target: world.targetLife.calls }
}

test('a target that goes away is opened again below the same reader: the copy stays at one position', async () => {
  const { target } = await countCalls()
  let retried = 0
  for (let call = 1; call <= target; call++) {
    using world = new LinkWorld()
    world.targetLife.failures.set(call, gone())
    const migrated = await world.migrate().catch((error: unknown) => error)
    if (!(migrated instanceof Error)) {
      retried += 1
      const { positions, findings } = migrated as Migrated
      assert.equal(positions.length, 1, `call ${call}`)
      assert.deepEqual(findings, [], `call ${call}`)
    } else {
      // Outside of the copy: told to the user, and resumed.
      assert.ok(isFault(migrated, 'unreachable'), String(migrated))
      await world.migrate(world.begun)
    }
    assert.deepEqual(world.target.rowsOf('shop.orders'), world.source.rowsOf('shop.orders'))
  }
  assert.ok(retried >= 8, `${retried}`)
})

test('a source that goes away during the copy is read on at another position, and the findings say so', async () => {
  const { source } = await countCalls()
  let severalPositions = 0
  for (let call = 1; call <= source; call++) {
    using world = new LinkWorld()
    world.sourceLife.failures.set(call, gone())
    const { sleep } = world.time
    // Somebody writes while the source is away.
    world.time.sleep = async (ms) => {
      await sleep(ms)
      world.source.put('shop.orders', 99, 'late')
    }
    const migrated = await world.migrate().catch((error: unknown) => error)
    if (migrated instanceof Error) {
      assert.ok(isFault(migrated, 'unreachable'), String(migrated))
      continue
    }
    const codes = (migrated as Migrated).findings.map(({ code }) => code)
    if (codes.includes('several-positions')) severalPositions += 1
    const { length } = (migrated as Migrated).positions
    assert.equal(codes.includes('several-positions'), length > 1, `call ${call}`)
  }
  assert.ok(severalPositions > 3, `${severalPositions}`)
})
