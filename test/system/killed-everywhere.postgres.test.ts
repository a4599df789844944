import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { openStorage } from '#storage/all'
import { FolderPlace } from '../support/killed/places.ts'
import { ProtectRow } from '../support/killed/protect-trials.ts'
import { spread, VerbRow } from '../support/killed/trials.ts'
import { classes, countClasses, VaultWorld } from '../support/killed/vault-world.ts'
import { verbs } from '../support/killed/verbs.ts'

const protectTrials = 2

test('whatever command dies at whatever operation of the store, the next one goes on and nothing is lost', async () => {
  await using world = await VaultWorld.begin()
  await world.build()
  const counts = await countClasses(await openStorage(world.vault))
  const sum = Object.values(counts).reduce((all, one) => all + one, 0)
  assert.ok(sum >= 500, `${sum} objects`)
  const expected = classes.filter((name) => name !== 'other')
  assert.deepEqual(Object.keys(counts).sort(), expected.toSorted())
  const random = seededRandom(7)
  const queue = verbs.filter(({ shortTrials }) => shortTrials > 0)
  let tried = 0
  const work = async () => {
    for (let verb = queue.shift(); verb; verb = queue.shift()) {
      const place = new FolderPlace(world, verb.name.replaceAll(' ', '-'))
      const row = await VerbRow.begin(verb, place, { followEvery: 1, readDataEvery: 2 })
      const trials = await row.run(spread(row.operations, verb.shortTrials, random))
      assert.deepEqual(trials.failures, [], verb.name)
      // A run may end before it comes to the operation: it does not always do the same.
      assert.equal(trials.tried + trials.ended, verb.shortTrials, JSON.stringify(trials))
      tried += trials.tried
    }
  }
  await Promise.all([work(), work()])
  assert.ok(tried > 10, `${tried} runs were killed`)
  const place = new FolderPlace(world, 'protect')
  const row = await ProtectRow.begin(place, { verifyEvery: 1, readDataEvery: 2 })
  const trials = await row.run(spread(row.operations, protectTrials, random))
  assert.deepEqual(trials.failures, [])
  assert.equal(trials.tried, protectTrials)
})
