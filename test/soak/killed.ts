// Every command is killed at every operation of its store, in a folder and in S3, and run again: nothing may be lost.
import type { CrashAt } from '../support/killed/command.ts'
import { seededRandom } from '#base/random'
import { openStorage } from '#storage/all'
import { makeBucketPlace, makeFolderPlace } from '../support/killed/places.ts'
import { killProtect } from '../support/killed/protect-trials.ts'
import { everywhere, killVerb, type TrialOptions } from '../support/killed/trials.ts'
import { countClasses, VaultWorld } from '../support/killed/vault-world.ts'
import { verbs } from '../support/killed/verbs.ts'
import { recordTrial } from '../support/record-trial.ts'

const seed = Number(process.env['REDOUBT_SOAK_SEED'] ?? 1)
/** For a part of it: so many trials of a verb, chosen by the seed; and which verbs. */
const trialsMax = Number(process.env['REDOUBT_SOAK_KILLED'] ?? Infinity)
const wanted = new RegExp(process.env['REDOUBT_SOAK_VERBS'] ?? '')
const stores = (process.env['REDOUBT_SOAK_STORES'] ?? 'fs,s3').split(',')
const random = seededRandom(seed)

/** All of them in a shuffled order, so that a part is a fair one. */
function choose(operations: readonly string[]): CrashAt[] {
  const all = [...everywhere(operations)].map((crash) => ({ crash, rank: random() }))
  const shuffled = all.sort((a, b) => a.rank - b.rank).map(({ crash }) => crash)
  return shuffled.slice(0, trialsMax)
}

const options: TrialOptions = {
  choose,
  readDataEvery: 10,
  onTrial: (trial) => process.stdout.write(`${JSON.stringify(trial)}\n`),
}

await using world = await VaultWorld.begin()
await world.build()
const classes = await countClasses(await openStorage(world.vault))
const objects = Object.values(classes).reduce((all, one) => all + one, 0)

for (const store of stores) {
  const jobs = [...verbs.map(({ name }) => name), 'protect'].filter((name) => wanted.test(name))
  const makePlace = store === 's3' ? makeBucketPlace : makeFolderPlace
  const work = async () => {
    for (let name = jobs.shift(); name !== undefined; name = jobs.shift()) {
      const place = await makePlace(world, `${store}-${name.replaceAll(' ', '-')}`)
      const verb = verbs.find((one) => one.name === name)
      const trials = await (verb ? killVerb(verb, place, options) : killProtect(place, options))
      recordTrial('killed', { seed, store, objects, ...trials })
      if (trials.failures.length > 0 || trials.tried === 0) process.exitCode = 1
    }
  }
  await Promise.all([work(), work()])
}
process.exit()
