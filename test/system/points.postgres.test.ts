import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { pointsTrial } from '../support/points-trial.ts'
import { Scratch } from '../support/scratch.ts'
import { seededRandom } from '#base/random'

test('PostgreSQL comes back to random moments of a load with DDL, each as it was', async () => {
  using scratch = new Scratch('points-bin')
  const engine = openPostgresEngine(scratch.path)
  const points = await pointsTrial({ engine, points: 4, loadMs: 4000, random: seededRandom(7) })
  assert.equal(points.length, 4)
  for (const point of points) assert.notEqual(point.found, undefined, JSON.stringify(point))
})
