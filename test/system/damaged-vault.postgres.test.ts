import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { openStorage } from '#storage/all'
import { damages } from '../support/damaged/damage.ts'
import { commandLine, lookAtSound, type Site } from '../support/damaged/look.ts'
import { damageTrial, type DamageTrial, makeSparseVault } from '../support/damaged/trials.ts'
import { classOf, VaultWorld } from '../support/killed/vault-world.ts'

test('a damaged object of any kind is found by the check and by the restore, named, or done without', async () => {
  await using world = await VaultWorld.begin()
  await world.build()
  await world.server.stop()
  const random = seededRandom(23)
  const sites: Site[] = []
  for (const name of ['one', 'two']) sites.push({ world, url: await makeSparseVault(world, name) })
  const [first] = sites
  assert.ok(first)
  const sound = await lookAtSound(first, commandLine)
  const keys = (await Array.fromAsync((await openStorage(first.url)).list(''))).map((o) => o.key)
  const kinds = [...new Set(keys.map(classOf))]
  assert.ok(kinds.length >= 18, kinds.join())
  // One object of each kind, each in another way than the one before it.
  const queue = kinds.map((kind, index) => {
    const alike = keys.filter((key) => classOf(key) === kind)
    const key = alike[Math.floor(random() * alike.length)] ?? ''
    return { key, damage: damages[index % damages.length] ?? 'bit' }
  })
  const trials: DamageTrial[] = []
  const work = async (site: Site) => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const trial = await damageTrial({ ...next, site, random, commands: commandLine, sound })
      assert.ok(trial, `${next.damage} changes ${next.key}`)
      trials.push(trial)
    }
  }
  await Promise.all(sites.map(work))
  const failures = trials.flatMap(({ key, damage, failure }) =>
    failure === undefined ? [] : [`${key}, ${damage}: ${failure}`],
  )
  assert.deepEqual(failures, [])
  assert.equal(trials.length, kinds.length)
})
