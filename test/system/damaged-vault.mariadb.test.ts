import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { inProcess, lookAtSound } from '../support/damaged/look.ts'
import { damageEach, keysOf, oneOfEachKind } from '../support/damaged/rows.ts'
import { beginMariadb } from '../support/damaged/sites.ts'

test('a damaged object of any kind is found or done without, and no wrong row comes into a MariaDB', async () => {
  await using site = await beginMariadb()
  const random = seededRandom(29)
  const sound = await lookAtSound(site, inProcess)
  const injuries = oneOfEachKind(await keysOf(site), random)
  assert.ok(injuries.length >= 13, JSON.stringify(injuries))
  const how = { sites: [site], injuries, random, commands: inProcess, sound }
  const trials = await damageEach(how)
  assert.deepEqual(trials.failures, [])
  assert.equal(trials.tried, injuries.length)
})
