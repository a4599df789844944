import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import type { Applier } from '#change/apply'
import type { StartServer } from '../../../../test/support/mysql-family-harness.ts'
import { mysql } from '../mysql.ts'

const signal = AbortSignal.timeout(600_000)
const mark = (at: string) => ({ low: { history: 'h', at }, beyond: [] })

/** A link that changes hands, on a real server. */
export function ownershipTests(start: StartServer): void {
  test('sessions that a dead process left commit nothing any more, those of other links do', async () => {
    await using server = await start()
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    const open = (link: string, lanes: number): Promise<Applier> => {
      const selection = { accepts: () => true, map: (name: readonly string[]) => name }
      const options = { link, lanes, selection, conflicts: 'stop', log: silentLog, signal } as const
      return engine.apply?.openApply(options) ?? assert.fail('it applies')
    }
    const first = await open('one', 3)
    await using other = await open('two', 1)
    await first.lanes[0]?.commit(mark('1'), { signal })
    {
      await using second = await open('one', 2)
      for (const lane of first.lanes) {
        await assert.rejects(lane.commit(mark('9'), { signal }), { recovery: 'retry' })
      }
      assert.deepEqual(await second.applied({ signal }), mark('1'))
      await second.lanes[1]?.commit(mark('2'), { signal })
      await other.lanes[0]?.commit(mark('3'), { signal })
    }
    await using third = await open('one', 1)
    assert.deepEqual(await third.applied({ signal }), mark('2'))
    await first[Symbol.asyncDispose]()
  })
}
