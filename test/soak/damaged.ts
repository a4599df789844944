// Each stored object in turn is damaged in every way; a check and the restores must find it, name it, or do without it.
import { seededRandom } from '#base/random'
import { openStorage } from '#storage/all'
import { damages } from '../support/damaged/damage.ts'
import { inProcess, lookAtSound } from '../support/damaged/look.ts'
import { damageTrial, type DamageTrial, makeSparseVault } from '../support/damaged/trials.ts'
import { classOf, VaultWorld } from '../support/killed/vault-world.ts'
import { recordTrial } from '../support/record-trial.ts'

const seed = Number(process.env['REDOUBT_SOAK_SEED'] ?? 1)
/** For a part of it: so many trials, chosen by the seed. */
const trialsMax = Number(process.env['REDOUBT_SOAK_DAMAGED'] ?? Infinity)
/** Of so many log parts alike one is taken. */
const partsOf = Number(process.env['REDOUBT_SOAK_DAMAGED_PARTS'] ?? 1)
const random = seededRandom(seed)
const startedMs = performance.now()

await using world = await VaultWorld.begin()
await world.build()
await world.server.stop()
const url = await makeSparseVault(world)
const site = { world, url }
const sound = await lookAtSound(site, inProcess)
const keys = (await Array.fromAsync((await openStorage(url)).list(''))).map(({ key }) => key)
const chosen = keys.filter((key) => classOf(key) !== 'log part' || random() * partsOf < 1)
const all = chosen.flatMap((key) => damages.map((damage) => ({ key, damage, rank: random() })))
const shuffled = all.sort((a, b) => a.rank - b.rank).slice(0, trialsMax)

const table: Record<string, Record<string, number>> = {}
const failures: DamageTrial[] = []
let tried = 0
for (const { key, damage } of shuffled) {
  const trial = await damageTrial({ site, key, damage, random, commands: inProcess, sound })
  if (!trial) continue
  tried += 1
  const row = (table[`${trial.class}, ${damage}`] ??= {})
  for (const [name, how] of Object.entries(trial.taken)) {
    row[`${name}: ${how}`] = (row[`${name}: ${how}`] ?? 0) + 1
  }
  if (trial.failure === undefined) continue
  failures.push(trial)
  process.stdout.write(`${JSON.stringify(trial)}\n`)
}
const tookMs = Math.round(performance.now() - startedMs)
const counts = { objects: keys.length, counted: all.length, tried, failures, tookMs }
recordTrial('damaged', { seed, ...counts, table })
process.exitCode = failures.length > 0 || tried === 0 ? 1 : 0
