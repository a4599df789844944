import assert from 'node:assert/strict'
import { type CrashAt, ending } from './command.ts'
import type { Place } from './places.ts'
import type { CrashMoment } from './storage.ts'
import { runAgain, type Verb } from './verbs.ts'
import { verifyVault } from './verify.ts'

/** What some trials of one verb came to. */
export type KilledTrials = {
  readonly verb: string
  /** Operations of a run that nothing disturbed, and moments at them at which one can be killed. */
  readonly counted: number
  readonly moments: number
  /** Runs that were killed. */
  readonly tried: number
  /** Runs that had ended before they came to the operation: a run does not always do the same. */
  readonly ended: number
  /** Runs after which the command was run again, and all of the vault looked at. */
  readonly followed: number
  readonly failures: readonly string[]
  readonly tookMs: number
}

/** How one trial ended. */
export type TrialNews = CrashAt & {
  readonly verb: string
  readonly killed?: boolean
  readonly failure?: string | undefined
}

export type TrialOptions = {
  /** Every so many trials the next run follows though the vault was left in a state that was followed before. */
  readonly followEvery: number
  /** Of those that are followed, every so many all stored bytes are read. */
  readonly readDataEvery: number
  readonly onTrial?: ((trial: TrialNews) => void) | undefined
}

/** The trials of one verb, in portions. */
export interface KilledRow {
  readonly operations: readonly string[]
  run(crashes: Iterable<CrashAt>): Promise<KilledTrials>
}

const failuresMax = 10
/** Threads and the network do not keep order: a run may end before it comes to the operation, and another one may not. */
const runsMax = 3

/**
 * Kills a command at operations of its store, each time in the same vault. What a trial proves: the process died there,
 * by its own hand or the proxy's; every object that was there is there and unchanged but for those that are named in
 * the difference between the vault before and after; and from a vault with such a difference the same command, run
 * again, came to its end, the check found nothing, no lock was left, and all that was acknowledged was restored. The
 * last is done once for each difference (names that are random, and times, left out), and every `followEvery` trials.
 */
export class VerbRow implements KilledRow {
  readonly operations: readonly string[]
  readonly #verb: Verb
  readonly #place: Place
  readonly #options: TrialOptions
  /** Differences from which the next run went on well. */
  readonly #followed = new Set<string>()
  #follows = 0

  private constructor(
    verb: Verb,
    place: Place,
    options: TrialOptions,
    operations: readonly string[],
  ) {
    this.#verb = verb
    this.#place = place
    this.#options = options
    this.operations = operations
  }

  /** Gives the command something to do, and counts the operations of a run that nothing disturbs. */
  static async begin(verb: Verb, place: Place, options: TrialOptions): Promise<VerbRow> {
    await verb.prepare?.(place)
    await place.keep()
    const operations = await place.count(verb.args(place), async (child) => {
      const { code, said } = await ending(child)
      assert.equal(code, 0, `${verb.name} ended with ${code}: ${said}`)
    })
    await verb.clean?.(place)
    return new VerbRow(verb, place, options, operations)
  }

  async run(crashes: Iterable<CrashAt>): Promise<KilledTrials> {
    const startedMs = performance.now()
    const followsBefore = this.#follows
    const { name: verb } = this.#verb
    const failures: string[] = []
    let [tried, ended] = [0, 0]
    for (const crash of crashes) {
      const { moment, at } = crash
      try {
        const killed = await this.#try(crash)
        if (killed) tried += 1
        else ended += 1
        this.#options.onTrial?.({ verb, ...crash, killed })
      } catch (error) {
        tried += 1
        const what = `${verb}, killed ${moment} ${at} (${this.operations[at]})`
        failures.push(`${what}: ${error instanceof Error ? error.message : String(error)}`)
        this.#options.onTrial?.({ verb, ...crash, failure: failures.at(-1) })
        if (failures.length >= failuresMax) break
      }
    }
    const tookMs = Math.round(performance.now() - startedMs)
    const followed = this.#follows - followsBefore
    const counts = { counted: this.operations.length, moments: countMoments(this.operations) }
    return { verb, ...counts, tried, ended, followed, failures, tookMs }
  }

  async #try(crash: CrashAt): Promise<boolean> {
    for (let run = 1; ; run++) {
      const killed = await this.#killOnce(crash)
      if (killed || run === runsMax) return killed
    }
  }

  async #killOnce(crash: CrashAt): Promise<boolean> {
    const [verb, place] = [this.#verb, this.#place]
    await place.reset()
    place.trials += 1
    const first = await ending(place.start(verb.args(place), crash))
    await verb.clean?.(place)
    if (!first.killed && first.code !== 0) {
      throw new Error(`it ended with ${first.code} before it was killed: ${first.said}`)
    }
    const left = (await place.changes()).join('\n')
    const { followEvery, readDataEvery } = this.#options
    if (this.#followed.has(left) && place.trials % followEvery !== 0) return first.killed
    await runAgain(verb, place)
    this.#follows += 1
    const readData = this.#follows % readDataEvery === 0
    const { url, snapshots, world, trials: sample } = place
    const expected = { url, snapshots, logUntil: world.logUntil, readData, sample }
    await (verb.verify ?? ((_place, what) => verifyVault(world, what)))(place, expected)
    this.#followed.add(left)
    return first.killed
  }
}

function writes(operation: string): boolean {
  return /^(put|post|delete) /.test(operation)
}

const moments: readonly CrashMoment[] = ['before', 'middle', 'after']

/** Every operation: what sends bytes before, in the middle and after; other writing ones before and after; reading ones before. */
export function* everywhere(operations: readonly string[]): Generator<CrashAt> {
  for (const [at, operation] of operations.entries()) {
    if (operation.startsWith('put')) for (const moment of moments) yield { at, moment }
    else if (writes(operation)) {
      yield { at, moment: 'before' }
      yield { at, moment: 'after' }
    } else yield { at, moment: 'before' }
  }
}

export function countMoments(operations: readonly string[]): number {
  return [...everywhere(operations)].length
}

/** Some of them, seeded: two of three write. */
export function spread(
  operations: readonly string[],
  count: number,
  random: () => number,
): CrashAt[] {
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
