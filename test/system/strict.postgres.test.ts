import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { Scratch } from '../support/scratch.ts'
import { strictTrial } from '../support/strict-trial.ts'

for (const [killAfterMs, copies] of [
  [700, 1],
  [1900, 2],
] as const) {
  test(`strict with ${copies} copies loses no commit of PostgreSQL when server and archiver die after ${killAfterMs} ms`, async () => {
    using scratch = new Scratch('strict-bin')
    const trial = await strictTrial(openPostgresEngine(scratch.path), killAfterMs, copies)
    assert.ok(trial.seen > 0, `${trial.seen} commits were seen`)
    assert.equal(trial.lost, 0, JSON.stringify(trial))
    assert.equal(trial.differences, 0, JSON.stringify(trial))
    // At most the one that was in flight is more than what was seen.
    assert.ok(trial.restored <= trial.seen + 1, JSON.stringify(trial))
  })
}
