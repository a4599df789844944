// Each object of a vault is damaged in turn and in every way: a check and the restores must find it, name it, or do without it.
import { seededRandom } from '#base/random'
import { inProcess, lookAtSound } from '../support/damaged/look.ts'
import { damageEach, everyInjury, keysOf } from '../support/damaged/rows.ts'
import { beginFiles, beginMariadb, beginPostgres, type OwnSite } from '../support/damaged/sites.ts'
import { recordTrial } from '../support/record-trial.ts'

const seed = Number(process.env['REDOUBT_SOAK_SEED'] ?? 1)
/** For a part of it: so many trials of a vault, chosen by the seed; and which vaults. */
const trialsMax = Number(process.env['REDOUBT_SOAK_DAMAGED'] ?? Infinity)
const wanted = (process.env['REDOUBT_SOAK_VAULTS'] ?? 'files,mariadb,postgres').split(',')
/** So many trials make a line of the results. */
const portion = Number(process.env['REDOUBT_SOAK_PORTION'] ?? 100)

const begins: Readonly<Record<string, () => Promise<OwnSite>>> = {
  files: beginFiles,
  mariadb: beginMariadb,
  postgres: beginPostgres,
}

for (const vault of wanted) {
  const random = seededRandom(seed)
  const begin = begins[vault]
  if (!begin) throw new Error(`there is no vault ${vault} among ${Object.keys(begins).join()}`)
  await using site = await begin()
  const sound = await lookAtSound(site, inProcess)
  const keys = await keysOf(site)
  const ranked = everyInjury(keys).map((injury) => ({ injury, rank: random() }))
  const all = ranked.sort((a, b) => a.rank - b.rank).map(({ injury }) => injury)
  const left = all.slice(0, trialsMax)
  while (left.length > 0) {
    const injuries = left.splice(0, portion)
    const how = { sites: [site], injuries, random, commands: inProcess, sound }
    const trials = await damageEach(how)
    const counts = { objects: keys.length, counted: all.length, left: left.length }
    recordTrial('damaged', { seed, vault, ...counts, ...trials })
    if (trials.failures.length > 0 || trials.tried === 0) process.exitCode = 1
  }
}
