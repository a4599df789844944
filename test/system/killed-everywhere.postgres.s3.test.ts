import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { makeBucketPlace } from '../support/killed/places.ts'
import { killProtect } from '../support/killed/protect-trials.ts'
import { killVerb, spread } from '../support/killed/trials.ts'
import { VaultWorld } from '../support/killed/vault-world.ts'
import { verbs } from '../support/killed/verbs.ts'

const names = ['vault init', 'backup of files', 'vault prune', 'vault key add']

test('in a bucket, too, the next command goes on where one was killed, and nothing is lost', async () => {
  await using world = await VaultWorld.begin()
  await world.build()
  const random = seededRandom(9)
  const readDataEvery = 2
  const queue = verbs.filter(({ name }) => names.includes(name))
  assert.equal(queue.length, names.length)
  let tried = 0
  for (const verb of queue) {
    const place = await makeBucketPlace(world, verb.name.replaceAll(' ', '-'))
    const trials = await killVerb(verb, place, { choose: spread(1, random), readDataEvery })
    assert.deepEqual(trials.failures, [], verb.name)
    tried += trials.tried
  }
  const place = await makeBucketPlace(world, 'protect')
  const trials = await killProtect(place, { choose: spread(1, random), readDataEvery })
  assert.deepEqual(trials.failures, [])
  assert.ok(tried + trials.tried >= names.length, `${tried} runs were killed`)
})
