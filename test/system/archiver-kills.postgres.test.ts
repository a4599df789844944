import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { archiverKills } from '../support/archiver-kills.ts'
import { Scratch } from '../support/scratch.ts'

test('an archiver of PostgreSQL that is killed again and again loses nothing and leaves no gap', async () => {
  using scratch = new Scratch('kills-bin')
  const engine = openPostgresEngine(scratch.path)
  const trial = await archiverKills({ engine, kills: 2, random: seededRandom(11) })
  assert.ok(trial.seen > 50, JSON.stringify(trial))
  // One commit more may have happened that nobody saw return.
  assert.ok(trial.restored >= trial.seen, JSON.stringify(trial))
  assert.ok(trial.restored <= trial.seen + 1, JSON.stringify(trial))
  assert.deepEqual(
    { ...trial, seen: 0, restored: 0 },
    { kills: 2, seen: 0, restored: 0, differences: 0, windows: 1, gaps: 0, checkOk: true },
  )
})
