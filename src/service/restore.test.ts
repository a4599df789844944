import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { engineNamed } from '#engines/all'
import { parseAt } from './restore.ts'

test('parseAt() knows times, positions, names, and refuses what was meant as a time', async () => {
  for (const engine of ['postgres', 'mysql']) {
    const kind = await engineNamed(engine)
    assert.deepEqual(parseAt('latest', kind), { kind: 'latest' })
    assert.equal(parseAt('2026-03-01 12:30', kind).kind, 'time')
    assert.equal(parseAt('point:yesterday', kind).kind, 'name')
    // The names that bases get: of the source, which may be an address.
    for (const name of ['before-deploy', '10.10.10.5-5432-2026-03-01T12:00:00Z', '2001-470-1-5432'])
      assert.deepEqual(parseAt(name, kind), { kind: 'name', name })
    const slips = [
      'yesterday',
      'Now',
      '2 hours ago',
      '2026-02-30',
      '2026-3-1 12:30',
      '12:30',
      '1.3.2026',
    ]
    for (const slip of [...slips, '03/01/2026 12:30', '2026-03-01T25:00'])
      assert.throws(
        () => parseAt(slip, kind),
        (error) => isFault(error, 'usage'),
        slip,
      )
  }
})
