import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { commandLine, lookAtSound } from '../support/damaged/look.ts'
import { damageEach, keysOf, oneOfEachKind } from '../support/damaged/rows.ts'
import { beginPostgres, copySite } from '../support/damaged/sites.ts'

test('a damaged object of any kind is found by the check and by the restore, named, or done without', async () => {
  await using site = await beginPostgres()
  const random = seededRandom(23)
  const sound = await lookAtSound(site, commandLine)
  const injuries = oneOfEachKind(await keysOf(site), random)
  assert.ok(injuries.length >= 18, JSON.stringify(injuries))
  const sites = [site, copySite(site, 'second')]
  const trials = await damageEach({ sites, injuries, random, commands: commandLine, sound })
  assert.deepEqual(trials.failures, [])
  assert.equal(trials.tried, injuries.length)
})
