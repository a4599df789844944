import { randomBytes } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Redoubt } from './redoubt.ts'
import { canFetchMariadb, fetchMariadb, findMariadb } from './servers/mariadb.ts'
import { openPostgresEngine } from './servers/postgres.ts'
import type { DemoEngine } from './servers/server.ts'
import { openPlainStage, openTerminalStage, type Stage } from './stage.ts'
import { type Outcome, play } from './story.ts'
import { type Words, wordsFor } from './words.ts'

export type DemoOptions = {
  /** Run through without a question. */
  readonly once: boolean
  readonly signal: AbortSignal
  readonly env: Readonly<Record<string, string | undefined>>
}

/**
 * Plays the story of `redoubt demo` on real servers below a folder of its own, which is gone afterwards. Returns the
 * exit code: 0 only when every comparison held. An abort ends the servers and throws its reason.
 */
export async function runDemo(options: DemoOptions): Promise<number> {
  const { env, signal } = options
  // Without somebody at a keyboard there is nobody to ask.
  const once = options.once || !process.stdin.isTTY || !process.stdout.isTTY
  const words = wordsFor(env)
  const stage = openStage(once, words)
  stage.open(words.title)
  const folder = mkdtempSync(path.join(tmpdir(), 'redoubt-demo-'))
  // The servers belong to another user when this runs as root.
  chmodSync(folder, 0o755)
  try {
    await using opened = new AsyncDisposableStack()
    const engines = await findEngines({ once, stage, words, folder, signal })
    const password = randomBytes(12).toString('base64url')
    const state = { REDOUBT_VAULT_PASSWORD: password, REDOUBT_DATA: path.join(folder, 'state') }
    const redoubt = new Redoubt(state, signal)
    const vault = path.join(folder, 'vault')
    const props = { stage, words, redoubt, engines, folder, vault, signal, opened }
    const outcomes = await play(props)
    const held = outcomes.every(({ moment, latest }) => moment.held && latest.held)
    showResult(outcomes, stage, words)
    if (!once) {
      stage.card(words.look, [
        ...words.lookLines(vault, password),
        ...outcomes.flatMap(({ name, urls }) => urls.map((url) => `${name}: ${url}`)),
      ])
      if (await stage.ask(words.keep))
        while (!(await stage.ask(words.kept))) signal.throwIfAborted()
    }
    if (engines.length === 1) stage.fact(words.withoutMariadb)
    stage.close(held ? words.allHeld : words.notHeld)
    return held ? 0 : 1
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function openStage(once: boolean, { yes, no }: Words): Stage {
  if (process.stdout.isTTY) return openTerminalStage({ once, yes, no })
  return openPlainStage((line) => process.stdout.write(`${line}\n`))
}

async function findEngines(options: {
  readonly once: boolean
  readonly stage: Stage
  readonly words: Words
  readonly folder: string
  readonly signal: AbortSignal
}): Promise<DemoEngine[]> {
  const { stage, words, folder, signal } = options
  const postgres = openPostgresEngine(folder)
  const found = findMariadb()
  if (found) return [postgres, found]
  if (!canFetchMariadb() || !(await stage.ask(words.fetchMariadb))) {
    stage.fact(words.noMariadb)
    return [postgres]
  }
  const mariadb = await stage.work(words.findingMariadb, async () => {
    const value = await fetchMariadb(signal)
    return { value, said: value ? words.fetchedMariadb : words.noMariadb }
  })
  return mariadb ? [postgres, mariadb] : [postgres]
}

function showResult(outcomes: readonly Outcome[], stage: Stage, words: Words): void {
  const lines = outcomes.map(({ name, latest, rtoMs }) => {
    const rpo = latest.lost === 0 ? '0' : `${latest.lostMs} ms`
    return `${name.padEnd(11)} ${words.measured(rpo, latest.lost, (rtoMs / 1000).toFixed(1))}`
  })
  stage.card(words.result, lines)
}
