import { cpSync, existsSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { Protection } from '../../../src/demo/redoubt.ts'
import { ending, startCommand } from './command.ts'
import type { KilledTrials, TrialOptions } from './trials.ts'
import type { VaultWorld } from './vault-world.ts'
import type { Place } from './verbs.ts'
import { verifyVault } from './verify.ts'

const signal = new AbortController().signal
/** How long an undisturbed session is counted for, once its base is taken: parts, folds and the lease come again and again. */
const countedMs = 3000
const failuresMax = 5

/**
 * Kills `protect` under load at operations of its store: while it takes over the archive, ships parts, folds segments,
 * takes a base, forgets old ones and trims the log. After each it is started again, and what it had and what it
 * catches up with must be the server's own log.
 */
export async function killProtect(place: Place, options: TrialOptions): Promise<KilledTrials> {
  const startedMs = performance.now()
  const { world } = place
  const state = world.scratch.join(`${place.name}-journal`)
  cpSync(world.scratch.join('journal'), state, { recursive: true })
  const session = new Session(place, state)
  await using _load = startLoad(world)
  const operations = await session.count()
  const failures: string[] = []
  let tried = 0
  for (const crash of options.choose(operations)) {
    place.trials += 1
    tried += 1
    const what = `protect, killed ${crash.moment} ${crash.at} (${operations[crash.at]})`
    try {
      const died = await session.killed(crash)
      const logUntil = await session.catchUp()
      const readData = place.trials % options.readDataEvery === 0
      const { url, snapshots } = place
      const how = { thorough: true, readData, sample: place.trials }
      await verifyVault(world, { url, snapshots, logUntil, ...how })
      options.onTrial?.({ verb: 'protect', ...crash, killed: true, at: died })
    } catch (error) {
      failures.push(`${what}: ${error instanceof Error ? error.message : String(error)}`)
      options.onTrial?.({ verb: 'protect', ...crash, failure: failures.at(-1) })
      if (failures.length >= failuresMax) break
    }
  }
  const tookMs = Math.round(performance.now() - startedMs)
  return { verb: 'protect', counted: operations.length, tried, ended: 0, failures, tookMs }
}

/** One protection after the other, of the same source into the same vault. */
class Session {
  readonly #place: Place
  readonly #args: string[]
  readonly #file: string

  constructor(place: Place, state: string) {
    this.#place = place
    const often = ['--base-every', '15s', '--keep-last', '3']
    this.#args = [...place.world.protectArgs(place.url, state), ...often]
    this.#file = place.world.scratch.join(`${place.name}-operations`)
  }

  async count(): Promise<readonly string[]> {
    const { env } = this.#place
    const counting = { ...env, REDOUBT_TEST_OPERATIONS: this.#file }
    {
      const child = startCommand(this.#args, counting, { at: -1, moment: 'before' })
      await using protection = new Protection(child as never)
      await protection.until(({ said }) => /^base .* taken/.test(said), { signal })
      await delay(countedMs)
    }
    return readFileSync(this.#file, 'utf8').trim().split('\n')
  }

  /** Runs until it dies; throws when it ends in another way. */
  async killed(crash: Parameters<typeof startCommand>[2]): Promise<number> {
    const child = startCommand(this.#args, this.#place.env, crash)
    const { killed, code, said } = await ending(child)
    if (!killed) throw new Error(`it ended with ${code} before it was killed: ${said}`)
    return crash?.at ?? -1
  }

  /** Runs until all that the server has committed by now is in the vault; returns where that ends. */
  async catchUp(): Promise<string> {
    await using protection = new Protection(startCommand(this.#args, this.#place.env) as never)
    const end = await this.#place.world.logEnd()
    await protection.until(
      ({ vaults, lastBase }) => lastBase !== undefined && (vaults[0]?.durable ?? '') >= end,
      { signal },
    )
    return end
  }
}

/** Commits and ended segments, one behind the other, until the scope ends. */
function startLoad(world: VaultWorld): AsyncDisposable {
  const stop = new AbortController()
  const run = async () => {
    while (!stop.signal.aborted) {
      await world.load(3)
      await delay(300, undefined, { signal: stop.signal }).catch(() => undefined)
    }
  }
  const running = run()
  running.catch(() => undefined)
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      if (existsSync(world.server.dataDir)) await running
    },
  }
}
