import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { text } from 'node:stream/consumers'
import type { Migrated } from '#links/migrate'
import { hasState } from '#links/state'
import type { Ran } from './command.ts'
import type { Dice } from './dice.ts'

const launcher = path.resolve(import.meta.dirname, '../../redoubt')
/** A run that is not killed must end in this time. */
const patienceMs = 120_000
const resumesMax = 40

/** A mover that is to be killed: its command, and where its state is. */
export type KillTrial = {
  readonly args: readonly string[]
  readonly state: string
  readonly dice: Dice
  readonly kills: number
  /** A run is killed at a moment between its first and this one. */
  readonly killWithinMs: number
}

export type Killed = {
  /** Where the link stood each time: its state, and how many runs had been begun. */
  readonly at: readonly string[]
  readonly last: Ran
}

/** Starts `redoubt migrate`, kills it with SIGKILL at random moments, resumes it, and lets it end at last. */
export async function killMigrate({
  args,
  state,
  dice,
  kills,
  killWithinMs,
}: KillTrial): Promise<Killed> {
  const at: string[] = []
  for (let start = 0; start < resumesMax; start++) {
    const more = standsAt(state) === undefined ? [] : ['--resume']
    const killAfterMs = at.length < kills ? dice.roll(killWithinMs) : undefined
    const ran = await runMigrate([...args, '--state', state, ...more], killAfterMs)
    if (ran.code !== 128) return { at, last: ran }
    at.push(standsAt(state) ?? 'new')
  }
  return assert.fail(`it is not done after ${resumesMax} starts: ${at.join()}`)
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

/** Runs `redoubt migrate ... --json`; code 128 when it was killed. */
export async function runMigrate(args: readonly string[], killAfterMs?: number): Promise<Ran> {
  const startedMs = performance.now()
  const child = spawn(launcher, ['migrate', ...args, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs ?? patienceMs)
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject).once('close', (code) => resolve(code ?? 128))
  })
  const [out, said, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  clearTimeout(timer)
  return { code, out, said, tookMs: Math.round(performance.now() - startedMs) }
}

/** The document at the end of a migration that was done; `0` or `3` is its exit code. */
export function migratedOf(ran: Ran): Migrated {
  assert.ok(ran.code === 0 || ran.code === 3, `exit ${ran.code}\n${ran.out}${ran.said}`)
  const last = JSON.parse(ran.out.trim().split('\n').at(-1) ?? '') as Migrated & { kind: string }
  assert.equal(last.kind, 'result')
  assert.equal(last.done, true)
  return last
}
