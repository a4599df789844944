import { openStorage } from '#storage/all'
import { classOf } from '../killed/vault-world.ts'
import { type Damage, damages } from './damage.ts'
import type { Commands, Sound } from './look.ts'
import { damageTrial, type DamageTrial } from './trials.ts'
import { newestOf, type Site } from './sites.ts'

/** What is to be damaged, and how. */
export type Injury = { readonly key: string; readonly damage: Damage }

/** What some trials came to. */
export type DamagedTrials = {
  /** Trials in which something was changed: an empty object cannot be cut short. */
  readonly tried: number
  readonly failures: readonly DamageTrial[]
  /** By the kind of object and damage, how often each way of looking took it in which way. */
  readonly table: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly tookMs: number
}

export async function keysOf(site: Site): Promise<string[]> {
  await using storage = await openStorage(site.url)
  return (await Array.fromAsync(storage.list(''))).map(({ key }) => key)
}

/** Each object in every way. */
export function everyInjury(keys: readonly string[]): Injury[] {
  return keys.flatMap((key) => damages.map((damage) => ({ key, damage })))
}

/** One object of each kind, each in another way than the one before it. */
export function oneOfEachKind(keys: readonly string[], random: () => number): Injury[] {
  return [...new Set(keys.map(classOf))].map((kind, index) => {
    const alike = keys.filter((key) => classOf(key) === kind)
    const key = alike[Math.floor(random() * alike.length)] ?? ''
    return { key, damage: damages[index % damages.length] ?? 'bit' }
  })
}

/** Damages one after the other, on each site one at a time. */
export async function damageEach(options: {
  readonly sites: readonly Site[]
  readonly injuries: readonly Injury[]
  readonly random: () => number
  readonly commands: Commands
  readonly sound: Sound
}): Promise<DamagedTrials> {
  const { sites, random, commands, sound } = options
  const startedMs = performance.now()
  const queue = [...options.injuries]
  const [first] = sites
  const newest = newestOf(first ? await keysOf(first) : [])
  const table: Record<string, Record<string, number>> = {}
  const failures: DamageTrial[] = []
  let tried = 0
  const work = async (site: Site) => {
    for (let injury = queue.shift(); injury; injury = queue.shift()) {
      const trial = await damageTrial({ ...injury, site, random, commands, sound, newest })
      if (!trial) continue
      tried += 1
      const row = (table[`${trial.class}, ${trial.damage}`] ??= {})
      for (const [name, how] of Object.entries(trial.taken)) {
        row[`${name}: ${how}`] = (row[`${name}: ${how}`] ?? 0) + 1
      }
      if (trial.failure !== undefined) failures.push(trial)
    }
  }
  await Promise.all(sites.map(work))
  return { tried, failures, table, tookMs: Math.round(performance.now() - startedMs) }
}
