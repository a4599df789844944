import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import path from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { formatTimeUs, systemTime } from '#base/time'
import { Redoubt } from '../../src/demo/redoubt.ts'
import type { DemoEngine } from '../../src/demo/servers/server.ts'
import { readOracle, type SeenCommit } from '../../src/demo/shop/oracle.ts'
import { openLoadDatabase } from './ddl-load/database.ts'
import { stateAfter } from './ddl-load/model.ts'
import { Scratch } from './scratch.ts'

/** A restore to one moment, and how many transactions it was found to hold. */
export type Point = {
  readonly engine: string
  readonly at: string
  /** Transactions that had returned before the moment, and that had begun by then: the truth lies between. */
  readonly atLeast: number
  readonly atMost: number
  /** The number whose state the restored database has in every row, column, table and index; undefined for none. */
  readonly found: number | undefined
  readonly tookMs: number
}

/** The clocks are one machine's, but are not read in one instant. */
const clockSlackMs = 2
const source = 'events'

export type PointsOptions = {
  readonly engine: DemoEngine
  readonly points: number
  readonly loadMs: number
  readonly random: () => number
  readonly onPoint?: ((point: Point) => void) | undefined
}

/**
 * Protects a server under a load of rows and DDL, loses it, and restores it to random moments of the load; each time
 * the whole state is compared with the one that the load's own notes say was committed by then.
 */
export async function pointsTrial(options: PointsOptions): Promise<Point[]> {
  const { engine } = options
  const { signal } = new AbortController()
  using scratch = new Scratch('points')
  const redoubt = new Redoubt(
    {
      REDOUBT_VAULT_PASSWORD: randomBytes(9).toString('base64url'),
      REDOUBT_DATA: scratch.join('state'),
    },
    signal,
  )
  await using opened = new AsyncDisposableStack()
  const server = opened.use(await engine.start(scratch.join('server'), signal))
  const vault = ['--vault', scratch.join('vault')]
  await redoubt.run(['vault', 'init', ...vault])
  const protection = redoubt.protect(['--source', server.url, ...vault, '--name', source])
  await using _protected = protection
  await protection.until(({ lastBase }) => lastBase !== undefined, { signal })
  const oracle = scratch.join('commits')
  await load(server.url, oracle, options.loadMs)
  await protection.untilShipped(Date.now(), { signal })
  await protection[Symbol.asyncDispose]()
  await server.loseEverything()
  const seen = readOracle(oracle)
  const points: Point[] = []
  for (let index = 0; index < options.points; index++) {
    const place = await engine.prepareTarget(scratch.join(`restored-${index}`), signal)
    await using _placed = place
    const moment = chooseMoment(engine, seen, options.random)
    const startedMs = systemTime.monotonicMs()
    const args = ['--source', source, '--at', moment.at, ...place.args]
    const said = await redoubt.run(['restore', ...vault, ...args])
    const tookMs = Math.round(systemTime.monotonicMs() - startedMs)
    const { result } = said as { readonly result: { readonly url?: string } }
    const found = await findState(place.shopUrl(result), moment)
    const point = { engine: engine.name, ...moment, found, tookMs }
    options.onPoint?.(point)
    points.push(point)
  }
  return points
}

async function load(url: string, oracle: string, ms: number): Promise<void> {
  const program = path.join(import.meta.dirname, 'ddl-load/load.ts')
  const child = spawn(process.execPath, [program, url, oracle, '3'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = once(child, 'close')
  await once(child.stdout, 'data')
  // By its own notes, not by this process's clock: a machine that stood still has committed nothing meanwhile.
  while (spanMs(readOracle(oracle)) < ms && child.exitCode === null) await systemTime.sleep(100)
  child.stdin.end()
  await ended
}

function spanMs(seen: readonly SeenCommit[]): number {
  return (seen.at(-1)?.startedMs ?? 0) - (seen[0]?.returnedMs ?? 0)
}

type Moment = { readonly at: string; readonly atLeast: number; readonly atMost: number }

/** A random moment of the load: to the microsecond, or the whole second where the engine knows no finer. */
function chooseMoment(
  engine: DemoEngine,
  seen: readonly SeenCommit[],
  random: () => number,
): Moment {
  const first = seen[0]
  const last = seen.at(-1)
  if (!first || !last) throw new Error('the load committed nothing')
  const wholeSeconds = engine.name === 'MariaDB'
  // The load may have begun within the second of the base: its beginning cannot be restored.
  const firstMs = wholeSeconds ? Math.ceil(first.returnedMs / 1000) * 1000 : first.returnedMs
  const ms = firstMs + random() * (last.startedMs - firstMs)
  // A commit stamped with the asked second belongs to it: the bound is that second's end.
  const boundMs = wholeSeconds ? Math.floor(ms / 1000) * 1000 + 1000 : ms
  const atUs = wholeSeconds ? BigInt(boundMs - 1000) * 1000n : BigInt(Math.round(ms * 1000))
  return {
    at: formatTimeUs(atUs),
    atLeast: seen.filter((commit) => commit.returnedMs < boundMs - clockSlackMs).length,
    atMost: seen.filter((commit) => commit.startedMs <= boundMs + clockSlackMs).length,
  }
}

async function findState(url: string, moment: Moment): Promise<number | undefined> {
  await using database = await openLoadDatabase(url)
  const actual = await database.read()
  for (let count = moment.atLeast; count <= moment.atMost; count++) {
    if (isDeepStrictEqual(actual, stateAfter(count))) return count
  }
  return undefined
}
