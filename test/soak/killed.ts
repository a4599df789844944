// Every command is killed at every operation of its store, in a folder and in S3, and run again: nothing may be lost.
import { seededRandom } from '#base/random'
import { openStorage } from '#storage/all'
import { BucketPlace } from '../support/killed/bucket-place.ts'
import type { CrashAt } from '../support/killed/command.ts'
import { FolderPlace, type Place } from '../support/killed/places.ts'
import { ProtectRow } from '../support/killed/protect-trials.ts'
import { everywhere, type KilledRow, type TrialNews, VerbRow } from '../support/killed/trials.ts'
import { countClasses, VaultWorld } from '../support/killed/vault-world.ts'
import { verbs } from '../support/killed/verbs.ts'
import { recordTrial } from '../support/record-trial.ts'

const seed = Number(process.env['REDOUBT_SOAK_SEED'] ?? 1)
/** For a part of it: so many trials of a verb, chosen by the seed; and which verbs. */
const trialsMax = Number(process.env['REDOUBT_SOAK_KILLED'] ?? Infinity)
const wanted = new RegExp(process.env['REDOUBT_SOAK_VERBS'] ?? '')
const stores = (process.env['REDOUBT_SOAK_STORES'] ?? 'fs,s3').split(',')
/** So many trials of a verb make a line of the results; then the next verb has its turn. */
const portion = Number(process.env['REDOUBT_SOAK_PORTION'] ?? 50)
const random = seededRandom(seed)
const atOnce = 2

type Job = { readonly row: KilledRow; readonly crashes: CrashAt[] }

/** All of them in a shuffled order, so that a part is a fair one. */
function shuffle(operations: readonly string[]): CrashAt[] {
  const all = [...everywhere(operations)].map((crash) => ({ crash, rank: random() }))
  const shuffled = all.sort((a, b) => a.rank - b.rank).map(({ crash }) => crash)
  return shuffled.slice(0, trialsMax)
}

function begin(name: string, place: Place): Promise<KilledRow> {
  const onTrial = (trial: TrialNews) => {
    if (trial.failure !== undefined) process.stdout.write(`${JSON.stringify(trial)}\n`)
  }
  const verb = verbs.find((one) => one.name === name)
  return verb
    ? VerbRow.begin(verb, place, { followEvery: 25, readDataEvery: 5, onTrial })
    : ProtectRow.begin(place, { verifyEvery: 10, readDataEvery: 3, onTrial })
}

await using world = await VaultWorld.begin()
await world.build()
const classes = await countClasses(await openStorage(world.vault))
const objects = Object.values(classes).reduce((all, one) => all + one, 0)
const names = [...verbs.map(({ name }) => name), 'protect'].filter((name) => wanted.test(name))

for (const store of stores) {
  const jobs: Job[] = []
  for (const name of names) {
    const where = `${store}-${name.replaceAll(' ', '-')}`
    const place =
      store === 's3' ? await BucketPlace.begin(world, where) : new FolderPlace(world, where)
    const row = await begin(name, place)
    jobs.push({ row, crashes: shuffle(row.operations) })
  }
  const work = async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) {
      const trials = await job.row.run(job.crashes.splice(0, portion))
      const left = job.crashes.length
      recordTrial('killed', { seed, store, objects, ...trials, left })
      if (trials.failures.length > 0 || trials.tried === 0) process.exitCode = 1
      if (left > 0) jobs.push(job)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))
}
process.exit()
