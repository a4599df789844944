import { countOperations, type CrashAt, runCommand } from './command.ts'
import type { CrashMoment } from './storage.ts'
import { type Place, runAgain, type Verb } from './verbs.ts'
import { verifyVault } from './verify.ts'

/** What the trials of one verb came to. */
export type KilledTrials = {
  readonly verb: string
  /** Operations of a run that nothing disturbed. */
  readonly counted: number
  /** Operations at which a run was killed. */
  readonly tried: number
  /** Runs that had ended before they came to the operation: a run does not always do the same. */
  readonly ended: number
  readonly failures: readonly string[]
  readonly tookMs: number
}

export type TrialOptions = {
  /** At which of the counted operations to kill, and at what moment. */
  readonly choose: (operations: readonly string[]) => Iterable<CrashAt>
  /** Every so many trials all stored bytes are read. */
  readonly readDataEvery: number
  readonly onTrial?: ((trial: object) => void) | undefined
}

const failuresMax = 10

/** Runs a verb once to count its operations, then kills it at those chosen, and after each runs it again. */
export async function killVerb(
  verb: Verb,
  place: Place,
  options: TrialOptions,
): Promise<KilledTrials> {
  const startedMs = performance.now()
  const operations = await countOnce(verb, place)
  const failures: string[] = []
  let [tried, ended] = [0, 0]
  for (const crash of options.choose(operations)) {
    place.trials += 1
    const what = `${verb.name}, killed ${crash.moment} ${crash.at} (${operations[crash.at]})`
    try {
      const readData = place.trials % options.readDataEvery === 0
      const operation = operations[crash.at] ?? ''
      const killed = await killOnce(verb, place, crash, { operation, readData })
      if (killed) tried += 1
      else ended += 1
      options.onTrial?.({ verb: verb.name, ...crash, killed })
    } catch (error) {
      tried += 1
      failures.push(`${what}: ${error instanceof Error ? error.message : String(error)}`)
      options.onTrial?.({ verb: verb.name, ...crash, failure: failures.at(-1) })
      if (failures.length >= failuresMax) break
    }
  }
  const tookMs = Math.round(performance.now() - startedMs)
  return { verb: verb.name, counted: operations.length, tried, ended, failures, tookMs }
}

async function countOnce(verb: Verb, place: Place): Promise<readonly string[]> {
  await verb.prepare?.(place)
  const { snapshots } = place
  const file = place.world.scratch.join(`${place.name}-operations`)
  const operations = await countOperations(verb.args(place), place.env, file)
  place.snapshots = snapshots
  await runAgain(verb, place)
  return operations
}

async function killOnce(
  verb: Verb,
  place: Place,
  crash: CrashAt,
  about: { readonly operation: string; readonly readData: boolean },
): Promise<boolean> {
  const { world, url } = place
  const { operation, readData } = about
  await verb.prepare?.(place)
  const first = await runCommand(verb.args(place), place.env, crash)
  if (!first.killed && first.code !== 0) {
    throw new Error(`it ended with ${first.code} before it was killed: ${first.said}`)
  }
  await runAgain(verb, place)
  const { logUntil } = world
  const sample = place.trials
  // Whoever dies while it reads leaves nothing new behind: each fifth of those is looked at in full.
  const thorough = writes(operation) || place.trials % 5 === 0
  const expected = { url, snapshots: place.snapshots, logUntil, readData, thorough, sample }
  await (verb.verify ?? ((_place, what) => verifyVault(world, what)))(place, expected)
  return first.killed
}

function writes(operation: string): boolean {
  return /^(put|delete) /.test(operation)
}

const moments: readonly CrashMoment[] = ['before', 'middle', 'after']

/** Every operation: writing ones before, in the middle and after; reading ones before. */
export function* everywhere(operations: readonly string[]): Generator<CrashAt> {
  for (const [at, operation] of operations.entries()) {
    if (operation.startsWith('put')) for (const moment of moments) yield { at, moment }
    else if (operation.startsWith('delete')) {
      yield { at, moment: 'before' }
      yield { at, moment: 'after' }
    } else yield { at, moment: 'before' }
  }
}

/** Some of them, seeded: two of three write. */
export function spread(count: number, random: () => number) {
  return (operations: readonly string[]): CrashAt[] => {
    const all = [...everywhere(operations)]
    const writing = all.filter(({ at }) => writes(operations[at] ?? ''))
    const reading = all.filter(({ at }) => !writes(operations[at] ?? ''))
    const chosen: CrashAt[] = []
    for (let i = 0; i < count; i++) {
      const from = i % 3 < 2 && writing.length > 0 ? writing : reading
      const [one] = from.splice(Math.floor(random() * from.length), 1)
      if (one) chosen.push(one)
    }
    return chosen
  }
}
