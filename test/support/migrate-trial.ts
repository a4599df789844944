import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import type { Migrated } from '#links/migrate'
import { hasState } from '#links/state'
import type { Ran } from './command.ts'
import { Dice } from './dice.ts'
import { Scratch } from './scratch.ts'

const launcher = path.resolve(import.meta.dirname, '../../redoubt')
/** A run that is not killed must end in this time. */
const patienceMs = 600_000

/** A moment of a mover's life: behind the nth line of its log that matches, and a little later. */
type Moment = {
  readonly line: RegExp
  readonly nth: number
  readonly afterMs: number
  /** SIGKILL where nothing else is wanted. */
  readonly how?: NodeJS.Signals | undefined
}

/** Lines of its debug log, and how many of them may pass by: from the first word to the last objects. */
const lines = [
  { line: /records the plan/, passes: 1 },
  { line: /made /, passes: 12 },
  { line: /copies rows/, passes: 1 },
  { line: /loads a chunk/, passes: 4 },
  { line: /loaded a chunk/, passes: 4 },
] as const
const afterMsMax = 60

/** A mover that is to be killed: its command, and where its state is. */
export type KillTrial = {
  readonly args: readonly string[]
  readonly state: string
  readonly dice: Dice
  readonly kills: number
}

export type Killed = {
  /** Where the link stood each time. */
  readonly at: readonly string[]
  readonly last: Ran
}

/** Starts `redoubt migrate`, kills it with SIGKILL at random moments, resumes it, and lets it end at last. */
export async function killMigrate({ args, state, dice, kills }: KillTrial): Promise<Killed> {
  const at: string[] = []
  for (let start = 0; start <= kills; start++) {
    const more = standsAt(state) === undefined ? [] : ['--resume']
    // The first one dies when it has loaded something, wherever the others die.
    const { line, passes } = start === 0 ? lines[4] : dice.pick(lines)
    const moment = { line, nth: 1 + dice.roll(passes), afterMs: dice.roll(afterMsMax) }
    const all = [...args, '--state', state, '--log-level', 'debug', ...more]
    const ran = await runMigrate(all, start < kills ? moment : undefined)
    if (ran.code !== 128) return { at, last: ran }
    at.push(standsAt(state) ?? 'new')
  }
  return assert.fail(`it is not done: ${at.join()}`)
}

/** What the state directory tells; undefined when no plan was recorded. */
export function standsAt(state: string): string | undefined {
  if (!hasState(state)) return undefined
  using database = new DatabaseSync(path.join(state, 'link.db'))
  const tables = database.prepare("select 1 from sqlite_master where name = 'fact'").all()
  if (tables.length === 0) return undefined
  return database.prepare("select value from fact where name = 'at'").get()?.['value'] as
    | string
    | undefined
}

/** Runs `redoubt migrate ... --json`, and kills it at a moment; code 128 when it was killed. */
export async function runMigrate(args: readonly string[], moment?: Moment): Promise<Ran> {
  const startedMs = performance.now()
  const child = spawn(launcher, ['migrate', ...args, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const timers = [setTimeout(() => void child.kill('SIGKILL'), patienceMs)]
  let seen = 0
  const said: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    said.push(line)
    if (!moment?.line.test(line)) return
    seen += 1
    if (seen !== moment.nth) return
    timers.push(setTimeout(() => void child.kill(moment.how ?? 'SIGKILL'), moment.afterMs))
  })
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject).once('close', (code) => resolve(code ?? 128))
  })
  const [out, code] = await Promise.all([text(child.stdout), ended])
  for (const timer of timers) clearTimeout(timer)
  const tookMs = Math.round(performance.now() - startedMs)
  return { code, out, said: said.join('\n'), tookMs }
}

/** The document at the end of a migration that was done; `0` or `3` is its exit code. */
export function migratedOf(ran: Ran): Migrated {
  assert.ok(ran.code === 0 || ran.code === 3, `exit ${ran.code}\n${ran.out}${ran.said}`)
  const last = JSON.parse(ran.out.trim().split('\n').at(-1) ?? '') as Migrated & { kind: string }
  assert.equal(last.kind, 'result')
  assert.equal(last.done, true)
  return last
}

/** Slow enough to be killed on the way: three seconds for the rows of a shop. */
export const slow = ['--chunk', '256KiB', '--parallel', '3', '--limit', '1500KB/s'] as const

/** Two servers, the first with a shop in it: orders of many kinds of columns, and what else a database holds. */
export type MigratePair = {
  /** `--from` and `--to` with what is theirs. */
  readonly ends: readonly string[]
  readonly seed: number
  /** Rows of `orders`. */
  readonly rows: number
  /** Fails where target and source differ. */
  same(): Promise<void>
  /** How many chunks the target has marked; none where it does not answer. */
  marks(): Promise<number>
  /** The target dies, and comes back. */
  loseTarget(): Promise<void>
}

/** The mover dies again and again, and nobody writes meanwhile. */
export async function killedTrial(pair: MigratePair): Promise<void> {
  using scratch = new Scratch('migrate')
  const trial = { state: scratch.join('state'), dice: new Dice(pair.seed), kills: 5 }
  const killed = await killMigrate({ ...trial, args: [...pair.ends, ...slow] })
  const migrated = migratedOf(killed.last)
  assert.ok(killed.at.includes('copying'), killed.at.join())
  await pair.same()
  const orders = migrated.tables.find(({ name }) => name.at(-1) === 'orders')
  assert.equal(String(orders?.rows), String(pair.rows))
  // Nobody wrote meanwhile: it is as exact as if nothing had happened.
  const codes = migrated.findings.map(({ code }) => code)
  assert.equal(codes.includes('mixed-positions') || codes.includes('several-positions'), false)
}

/** The target dies while rows come. */
export async function lostTargetTrial(pair: MigratePair): Promise<void> {
  using scratch = new Scratch('migrate')
  const running = runMigrate([...pair.ends, '--state', scratch.join('state'), ...slow])
  const untilMs = performance.now() + 300_000
  while ((await pair.marks()) <= 2) assert.ok(performance.now() < untilMs, 'no chunk comes')
  await pair.loseTarget()
  const migrated = migratedOf(await running)
  assert.equal(migrated.positions.length, 1)
  await pair.same()
}

/** What a finding blocks is refused, in a dry run too, and nothing is recorded. */
export async function blockedTrial(ends: readonly string[]): Promise<void> {
  using scratch = new Scratch('migrate')
  const state = scratch.join('state')
  for (const more of [[], ['--dry-run']]) {
    const ran = await runMigrate([...ends, '--state', state, ...more])
    assert.equal(ran.code, 5, `${ran.out}${ran.said}`)
    assert.match(ran.out, /"severity": ?"blocks"/)
    assert.equal(standsAt(state), undefined)
  }
}
