import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findMariadb } from '../../src/demo/servers/mariadb.ts'
import { pointsTrial } from '../support/points-trial.ts'
import { seededRandom } from '#base/random'

test('MariaDB comes back to random moments of a load with DDL, each as it was', async () => {
  const engine = findMariadb()
  assert.ok(engine, 'a MariaDB is installed')
  const points = await pointsTrial({ engine, points: 3, loadMs: 5000, random: seededRandom(7) })
  assert.equal(points.length, 3)
  for (const point of points) assert.notEqual(point.found, undefined, JSON.stringify(point))
})
