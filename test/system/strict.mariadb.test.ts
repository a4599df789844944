import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findMariadb } from '../../src/demo/servers/mariadb.ts'
import { strictTrial } from '../support/strict-trial.ts'

for (const killAfterMs of [700, 1900]) {
  test(`strict loses no commit of MariaDB when server and archiver die after ${killAfterMs} ms`, async () => {
    const engine = findMariadb()
    assert.ok(engine, 'a MariaDB is installed')
    const trial = await strictTrial(engine, killAfterMs)
    assert.ok(trial.seen > 0, `${trial.seen} commits were seen`)
    assert.equal(trial.lost, 0, JSON.stringify(trial))
    assert.equal(trial.differences, 0, JSON.stringify(trial))
    // At most the one that was in flight is more than what was seen.
    assert.ok(trial.restored <= trial.seen + 1, JSON.stringify(trial))
  })
}
