import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { BucketPlace } from '../support/killed/bucket-place.ts'
import { ProtectRow } from '../support/killed/protect-trials.ts'
import { spread, VerbRow } from '../support/killed/trials.ts'
import { VaultWorld } from '../support/killed/vault-world.ts'
import { verbs } from '../support/killed/verbs.ts'

const names = ['vault init', 'backup of files', 'vault prune', 'vault key add']

test('in a bucket, too, the next command goes on where one was killed, and nothing is lost', async () => {
  await using world = await VaultWorld.begin()
  await world.build()
  const random = seededRandom(9)
  const queue = verbs.filter(({ name }) => names.includes(name))
  assert.equal(queue.length, names.length)
  let tried = 0
  for (const verb of queue) {
    await using place = await BucketPlace.begin(world, verb.name.replaceAll(' ', '-'))
    const row = await VerbRow.begin(verb, place, { followEvery: 1, readDataEvery: 2 })
    const trials = await row.run(spread(row.operations, 1, random))
    assert.deepEqual(trials.failures, [], verb.name)
    tried += trials.tried
  }
  await using place = await BucketPlace.begin(world, 'protect')
  const row = await ProtectRow.begin(place, { verifyEvery: 1, readDataEvery: 2 })
  const trials = await row.run(spread(row.operations, 1, random))
  assert.deepEqual(trials.failures, [])
  assert.ok(tried + trials.tried >= names.length, `${tried} runs were killed`)
})
